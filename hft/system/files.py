"""Files that are there whole or not at all, and locks that die with their holder; one clear error
where it fails.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import filelock

from hft.spec import UserError


class FileError(UserError):
    """A file or folder that cannot be written."""


def write_atomic(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Puts `data` at `path` whole or not at all, on the disk before it returns when `durable`."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            with partial.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns what the system says against writing to `path` into a FileError."""
    try:
        yield
    except OSError as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise FileError(
            f"{path}: cannot be written ({reason}); make room or make it writable, or choose another folder: "
            "paths.runs=<folder>"
        ) from error


def is_locked(path: Path) -> bool:
    """Whether a living process holds `locked(path)`; leaves nothing behind."""
    lock = filelock.FileLock(path, fallback_to_soft=False)
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
    """Holds a kernel lock: it falls free when its holder dies, and its file goes when the holder is
    done.
    """
    lock = filelock.FileLock(path, fallback_to_soft=False)
    lock.acquire()
    try:
        yield
    finally:
        # Removed while still held: filelock makes whoever waits on the removed file open it anew.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
