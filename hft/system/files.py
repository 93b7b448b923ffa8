"""Files that are there whole or not at all, JSON that may come from a stranger, and locks that die
with their holder.

Every file of hft is written by `write_atomic` or by one of the two writers that use it, here and in
hft/system/parquet.py. What the system says against a write becomes one FileError with a remedy.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from hft.spec import UserError

MAX_JSON_BYTES = 16 * 2**20  # ours have kilobytes; a stranger's file must not fill the memory


class FileError(UserError):
    """A file or folder that cannot be read or written."""


ELSEWHERE = "choose another folder: paths.runs=<folder>"  # of files in a run, as most are


def write_atomic(
    path: Path, data: bytes | memoryview, *, durable: bool = True, remedy: str = ELSEWHERE
) -> None:
    """Puts `data` at `path` whole or not at all, on the disk before it returns when `durable`.

    Raises FileError, which ends with `remedy`.
    """
    with writable(path, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because a rename is atomic within one file system only; under a random
        # name, because several processes may write the same file at once.
        partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            with partial.open("xb") as file:
                file.write(data)
                # Before the rename: else a power cut could leave the new name without bytes.
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        # Ctrl-C in the middle leaves no partial file either.
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any, *, indent: int = 2, remedy: str = ELSEWHERE) -> None:
    """Raises FileError, and ValueError for a number that is not finite: JSON has none."""
    text = json.dumps(content, indent=indent, allow_nan=False)
    write_atomic(path, text.encode() + b"\n", remedy=remedy)


def read_json(
    path: Path, *, remedy: str, missing: str = "", error: type[UserError] = FileError
) -> dict[str, Any]:
    """The mapping in a JSON file of at most MAX_JSON_BYTES.

    Raises `error`, which ends with `remedy`: `missing` says what the lack of the file means.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"must have at most {MAX_JSON_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        why = f", {missing}" if missing else ""
        raise error(f"{path}: missing{why}; {remedy}") from None
    # A deeply nested file exhausts the stack, which is as good a reason to refuse it as any.
    except (OSError, ValueError, RecursionError) as fault:
        raise error(f"{path}: cannot be read ({first_line(fault)}); {remedy}") from fault
    if not isinstance(content, dict):
        raise error(f"{path}: must hold a mapping, got {type(content).__name__}; {remedy}")
    return content


def read_note(path: Path, name: str) -> str | None:
    """The text `name` of a small JSON file of this machine's own; None where there is none."""
    with contextlib.suppress(FileError):
        value = read_json(path, remedy="remove it").get(name)
        return value if isinstance(value, str) else None
    return None


def first_line(error: BaseException) -> str:
    return (str(error) or repr(error)).splitlines()[0]


@contextlib.contextmanager
def writable(path: Path, *, remedy: str = ELSEWHERE) -> Iterator[None]:
    """Turns what the system says against writing to `path` into a FileError."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written ({first_line(error)}); make room or make it writable, or "
            f"{remedy}"
        ) from error


def is_locked(path: Path) -> bool:
    """Whether a living process holds `locked(path)`; leaves nothing behind."""
    lock = filelock.FileLock(path, fallback_to_soft=False)
    # acquire() would create the file.
    if not path.exists():
        return False
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a kernel lock, which falls free when its holder dies; the file goes when the block
    ends.
    """
    # A soft lock is a mere file, which a holder that is killed would leave behind for ever.
    lock = filelock.FileLock(path, fallback_to_soft=False)
    lock.acquire()
    try:
        yield
    finally:
        # Removed while the lock is held: filelock makes whoever waits for it open the file anew.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
