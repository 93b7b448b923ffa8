"""Finds the files that a path of the config means, and identifies them by their content."""

from __future__ import annotations

import functools
import glob
import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from hft.market.ticks import DataError
from hft.spec import Role

Stamp = tuple[str, int, int]  # path, size, mtime: what a memo of a file's content is keyed by


def _given(path: str) -> str:
    # ??? is Hydra's mark of a value that must be given.
    if not path or path == "???":
        raise ValueError("must be a folder, file or glob")
    return path


# A place, and so no part of a run's identity: range_identity identifies the data by content.
DataPath = Annotated[str, AfterValidator(_given), Role.PLACE]


def find_files(path: str, pattern: str) -> list[Path]:
    """The file itself, the matches of the glob, or the files of the folder that match `pattern`.
    DataError when there is none.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        # Sorted: folders and globs list files in any order.
        found = sorted(f for f in root.glob(pattern) if f.is_file())
        if not found:
            raise DataError(
                f"data.path: no file in the folder {path} matches {pattern}: "
                "check data.path and data.symbol"
            )
        return found
    # Before the glob, because the name of a file may hold [ or *.
    if root.is_file():
        return [root]
    found = sorted(f for f in map(Path, glob.glob(str(root), recursive=True)) if f.is_file())
    if not found:
        raise DataError(
            "data.path: no such folder or file, and no file matches the glob: "
            f"{path} (in {Path.cwd()})"
        )
    return found


def stamp(path: Path) -> Stamp:
    # Size and time, since hashing a file of gigabytes to look up a memo would defeat the memo.
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def file_hash(path: Path) -> str:
    """sha256 hex of the file. A process hashes the file again only when its size or time of
    change is another.
    """
    return _hash(stamp(path))


@functools.lru_cache(maxsize=4096)
def _hash(key: Stamp) -> str:
    with open(key[0], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def case_free(text: str) -> str:
    """A glob for `text` in either case."""
    # Recorders write btcusdt into file names, data.symbol is BTCUSDT (docs/formats.md 1).
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else glob.escape(c) for c in text)


def names(files: list[Path]) -> str:
    return ", ".join(f.name for f in files)


def range_identity(
    bounds: tuple[int, int], open_ends: tuple[bool, bool], files: list[Path], **more: Any
) -> dict[str, Any]:
    """What a day's ticks depend on besides the numbers of the spec."""
    return {
        # Not by name: vendors replace archives in silence (docs/formats.md 2).
        "files": [file_hash(f) for f in files],
        "bounds": list(bounds),
        "open_ends": list(open_ends),
        **more,
    }
