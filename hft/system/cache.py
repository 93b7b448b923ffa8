"""Outputs of the stages on disk: each is computed once, then read by every run and every trial.

In: a stage's name, plain spec, modules, parents' keys and a `build` function. Out: an Entry with
the frames and the meta data that `build` returned, read from the disk if an entry of the same key
exists. The key covers everything that can change the result: the spec, the syntax trees of the
stage's modules and of the hft modules they import (hft/system/code.py), the versions of the numeric
libraries, the parents' keys and the content of input files. To cache a new stage, call `stage`.

An entry is a folder `<root>/<stage>/<key>/` of parquet files and a `meta.json` with their sizes and
hashes. It is written under another name and then renamed, so it exists whole or not at all. Nothing
is synced to the disk, because a damaged file fails its hash when it is read, and the entry is then
built again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hft.spec import UserError, fingerprint
from hft.system.code import syntax_hash
from hft.system.files import is_locked, locked

LAYOUT = 1  # raise it when entries are laid out differently: old ones are then never found
LIBRARIES = ("polars", "numba", "numpy")
META = "meta.json"

log = logging.getLogger(__name__)

Build = Callable[[], tuple[dict[str, pl.DataFrame], dict[str, Any]]]


class CacheError(UserError):
    """A cache folder that cannot be used."""


class _CorruptError(Exception):
    """An entry is not what was written; the exception never leaves this module."""


@dataclass(frozen=True)
class Entry:
    """One stage's output: its `meta`, and frames that are read and verified at each call."""

    key: str
    folder: Path
    meta: dict[str, Any]
    files: dict[str, dict[str, Any]]  # frame -> {"size", "sha256"}
    _rebuild: Callable[[str], Entry]

    def frame(self, name: str) -> pl.DataFrame:
        if name not in self.files:
            raise KeyError(f"{self.folder} holds {list(self.files)}, not {name!r}")
        try:
            return self._read(name)
        except _CorruptError as error:
            return self._rebuild(str(error))._read(name)

    def verify(self) -> Entry:
        for name, file in self.files.items():
            _verified_bytes(self.folder / f"{name}.parquet", file)
        return self

    def _read(self, name: str) -> pl.DataFrame:
        data = _verified_bytes(self.folder / f"{name}.parquet", self.files[name])
        # The bytes that were verified: polars, given the path, would read the file a second time.
        return pl.read_parquet(io.BytesIO(data))


@dataclass(frozen=True)
class Stored:
    """An entry on the disk; `used` is the time (s since 1970) when it was last read or written.

    File systems that are mounted without access times only know when it was written.
    """

    stage: str
    folder: Path
    size: int
    used: float


@dataclass(frozen=True)
class Cache:
    root: Path

    def key(
        self,
        stage: str,
        *,
        spec: Any,
        module: str | Sequence[str],
        parents: Sequence[str] = (),
        content: Any = None,
    ) -> str:
        """The identity of a stage's output. All arguments are JSON-ready.

        `module` is one or more dotted names inside hft.
        """
        # Sorted, because the order in which a caller names modules changes no result.
        modules = [module] if isinstance(module, str) else sorted(set(module))
        code = [syntax_hash(name) for name in modules]
        parts = {
            "layout": LAYOUT,
            "stage": stage,
            "spec": spec,
            "code": code,
            "libraries": _library_versions(),
        }
        return fingerprint(parts | {"parents": list(parents), "content": content})

    def has(self, stage: str, key: str) -> bool:
        """Whether `stage` would find its entry; a caller need not start processes then."""
        try:
            _load(self.root / stage / key, key, rebuild=_no_rebuild)
        except _CorruptError:
            return False
        return True

    def stage(
        self,
        name: str,
        *,
        spec: Any,
        module: str | Sequence[str],
        build: Build,
        parents: Sequence[str] = (),
        content: Any = None,
    ) -> Entry:
        """The entry of this key, built now unless it exists.

        `build` returns ({name: frame}, meta), where meta is JSON-ready. If several processes ask at
        once, one builds and the others wait. A hit costs a few stat calls, no lock and no write.
        Raises CacheError where the folder cannot be written.
        """
        key = self.key(name, spec=spec, module=module, parents=parents, content=content)
        folder = self.root / name / key

        def rebuild(reason: str) -> Entry:
            log.warning("cache entry %s is corrupt (%s): building it again", folder, reason)
            with self._locked(folder):
                try:
                    # Another process may have built it meanwhile. Files are hashed here, because a
                    # flipped bit leaves their sizes as they were.
                    return _load(folder, key, rebuild=rebuild).verify()
                except _CorruptError:
                    return self._write(folder, key, build, rebuild)

        try:
            return _load(folder, key, rebuild=rebuild)
        except _CorruptError as error:
            # Entries appear whole, so a folder without a sound one is damage and worth a warning;
            # without a folder there was nothing yet.
            if folder.exists():
                return rebuild(str(error))
        with self._locked(folder):
            try:  # another process may have built it while this one waited
                return _load(folder, key, rebuild=rebuild)
            except _CorruptError:
                return self._write(folder, key, build, rebuild)

    def stored(self) -> list[Stored]:
        """Every entry on the disk, by stage and key."""
        return [
            Stored(folder.parent.name, folder, *_size_and_use(folder))
            for folder in sorted(self.root.glob("*/*"))
            if _is_key(folder.name) and folder.is_dir()
        ]

    def remove(self, stored: Stored) -> None:
        """Removes an entry. A run that still reads it builds it again."""
        with self._locked(stored.folder), self._writable():
            partial = _partial_of(stored.folder)
            stored.folder.rename(partial)  # nobody finds half of an entry
            shutil.rmtree(partial)

    def sweep_partials(self) -> None:
        """Removes what killed writers left; what a living one is writing stays."""
        for partial in self.root.glob("*/.partial-*"):
            folder = partial.with_name(partial.name.removeprefix(".partial-"))
            if not is_locked(_lock_of(folder)):
                with self._locked(folder):
                    pass  # whoever takes the lock removes the remains

    def _write(
        self, folder: Path, key: str, build: Build, rebuild: Callable[[str], Entry]
    ) -> Entry:
        # Before anything is on the disk, so that a failed build leaves nothing behind.
        frames, meta = build()
        partial = _partial_of(folder)
        with self._writable():
            partial.mkdir()
            try:
                _write_files(partial, key, frames, meta)
                # What is corrupt goes first, because rename() replaces no folder that holds files.
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return _load(folder, key, rebuild=rebuild)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with ExitStack() as held:
            with self._writable():  # not around `yield`: the caller's own errors pass unchanged
                folder.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(_lock_of(folder)))
            # Only the holder of the lock writes here, so a killed writer left what is there now.
            shutil.rmtree(_partial_of(folder), ignore_errors=True)
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"cache folder {self.root}: cannot be written ({error}); "
                "make room or make it writable, or choose another: paths.cache=<folder>"
            ) from error


@functools.cache
def _library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _partial_of(folder: Path) -> Path:
    return folder.with_name(f".partial-{folder.name}")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".lock-{folder.name}")


def _is_key(name: str) -> bool:
    # Only names that the cache gives: whatever else lies there is not listed, so never removed.
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def _size_and_use(folder: Path) -> tuple[int, float]:
    """Bytes of an entry, and when a process last read or wrote it."""
    size, used = 0, 0.0
    with suppress(OSError):  # another process may remove it at the same time
        for path in folder.iterdir():
            found = path.stat()
            size, used = size + found.st_size, max(used, found.st_mtime, found.st_atime)
    return size, used


def _write_files(
    folder: Path, key: str, frames: dict[str, pl.DataFrame], meta: dict[str, Any]
) -> None:
    files = {}
    for name, frame in frames.items():
        path = folder / f"{name}.parquet"
        # Measured on 2 M trades: zstd 1 takes 35 MB, no compression 80 MB, and both are written in
        # 0.11 s.
        frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = {"size": path.stat().st_size, "sha256": digest}
    body = {"key": key, "files": files, "meta": meta}
    # This file holds the hashes of the others, so it has to carry its own.
    text = json.dumps({"sha256": fingerprint(body), "body": body}, indent=1, allow_nan=False)
    (folder / META).write_text(text)


def _load(folder: Path, key: str, *, rebuild: Callable[[str], Entry]) -> Entry:
    """The entry in `folder`, if its meta data are whole and its files have the right sizes.

    The hashes of the files are verified when they are read.
    """
    try:
        stored = json.loads((folder / META).read_bytes())
        body = stored["body"]
        if stored["sha256"] != fingerprint(body) or body["key"] != key:
            raise _CorruptError(f"{META} does not match its own hash")
        for name, file in body["files"].items():
            size = (folder / f"{name}.parquet").stat().st_size
            if size != file["size"]:
                raise _CorruptError(
                    f"{name}.parquet has {size} bytes, was written with {file['size']}"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _CorruptError(f"{META}: {error!r}") from error
    return Entry(key, folder, body["meta"], body["files"], rebuild)


def _verified_bytes(path: Path, file: dict[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _CorruptError(f"{path.name}: {error!r}") from error
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise _CorruptError(f"{path.name} does not match its hash")
    return data


def _no_rebuild(reason: str) -> Entry:
    raise AssertionError(f"has() reads no frame, but one was read: {reason}")
