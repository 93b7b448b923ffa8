"""`@kernel`: numba's njit, compiled once per machine instead of once per process.

In: a function whose module belongs to hft. Out: numba's dispatcher, whose compiled code is read
from and written to a folder of the user's: $HFT_KERNELS if it is set ("off" turns it off), in a
checkout `.cache/kernels` beside hft/, else `hft/kernels` in the user's cache folder. Numba's own
`cache=True` looks at one file's time: it runs an old callee of another module, forgets the compile
options, and crashes on damaged files.

One file holds one function compiled for one signature. Its name is the hash of all that decides
the code: bytecode, constants and options of the function and of every function that it reaches,
the values of the globals that they read, the types, Python, numba, LLVM and the CPU. These are read
from the functions in memory, so an edited file on the disk cannot be mistaken for them. What this
module does not understand (closures, functions as arguments, other kinds of globals) is compiled
in each process, as with njit.

The files hold machine code, and numba reads them with pickle, so whoever writes them can run code
here. They are therefore read only from a folder that its owner alone may enter, only where that
owner is this user, and only when the hash over name and content is right. No run, study or cache of
data ever holds one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from hft.spec import PACKAGE
from hft.system._kernel_key import UnclearError, kernel_key
from hft.system.files import FileError, write_atomic
from hft.system.numba_internals import from_bytes, to_bytes, use_store

SUFFIX = ".kernel"
KEEP_DAYS = 30  # what no process has read for so long goes

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


@overload
def kernel(function: F, /) -> F: ...
@overload
def kernel(**options: Any) -> Callable[[F], F]: ...
def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compiles `function` for each signature it is called with; `options` are njit's.

    Use it bare or with options: `@kernel`, `@kernel(nogil=True, error_model="numpy")`.
    """
    if function is None:
        return functools.partial(kernel, **options)
    from numba import njit  # noqa: TID251 (banned everywhere else)

    compiled = njit(**options)(function)
    use_store(compiled, _Store(compiled))
    return compiled


def default_folder() -> Path | None:
    """Where compiled kernels are kept; None where they are not."""
    chosen = os.environ.get("HFT_KERNELS", "")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen).absolute()
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return PACKAGE.parent / ".cache" / "kernels"
    with contextlib.suppress(RuntimeError):  # a user without a home
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hft" / "kernels"
    return None


def list_kernels(folder: Path) -> list[Path]:
    """Compiled kernels in `folder`; none where it is missing or cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    return []


def prune_kernels(folder: Path, *, days: float = KEEP_DAYS) -> list[Path]:
    """Removes the kernels that no process has read for `days`, and what killed writers left.

    Returns what it removed. With days=-math.inf that is every kernel.
    """
    removed = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            # Else it is a partial file of the atomic writer, and no write takes an hour.
            limit = days * 86_400 if path.suffix == SUFFIX else 3_600
            with contextlib.suppress(OSError):  # another process may remove it at the same time
                if SUFFIX in path.name and time.time() - path.stat().st_mtime > limit:
                    path.unlink()
                    removed.append(path)
    return removed


@dataclass(frozen=True)
class _Store:
    """What numba's dispatcher asks for code before it compiles, and tells what it has compiled."""

    dispatcher: Any

    @property
    def cache_path(self) -> str:
        return str(default_folder())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compile result, or None where there is none to trust."""
        try:
            # As in Numba's own cache: the context may not be initialised yet.
            target_context.refresh()
            key = kernel_key(self.dispatcher, signature, target_context)
            folder = default_folder()
            if folder is None or not _is_private(folder):
                return None
            if (payload := _read(folder / f"{key}{SUFFIX}")) is None:
                return None
            # This unpickles. It is safe as far as this user's own code is: see the module's head.
            return from_bytes(payload, target_context)
        except UnclearError:
            return None
        except Exception as error:  # whatever it is, compiling again is right
            log.debug("compiled %s cannot be read: %r", self.dispatcher, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        folder = default_folder()
        # Code that holds addresses of this process serves no other: Numba refuses it too.
        if folder is None or result.library.has_dynamic_globals or result.lifted:
            return
        try:
            key = kernel_key(self.dispatcher, signature, result.target_context)
            payload = to_bytes(result)
        except UnclearError as error:
            log.debug("compiled %s is not kept: %s", self.dispatcher, error)
            return
        except Exception as error:  # numba could not serialize it: only time is lost
            log.debug("compiled %s cannot be kept: %r", self.dispatcher, error)
            return
        _write(folder / f"{key}{SUFFIX}", payload)

    def enable(self) -> None:
        """Numba's protocol; HFT_KERNELS decides."""

    def disable(self) -> None:
        """Numba's protocol; HFT_KERNELS decides."""

    def flush(self) -> None:
        """Numba's protocol, called by recompile(): nothing here can be out of date."""


def _is_private(folder: Path) -> bool:
    """Whether `folder` exists, is this user's, and lets nobody else in; says so where it does."""
    try:
        # lstat follows no link, so that a link is refused, whoever owns what it points to.
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        _note(f"{folder}: must be a folder to keep compiled kernels in. {_REMEDY}")
    elif found.st_uid != os.geteuid():
        _note(
            f"{folder}: compiled kernels in it are ignored, because the folder belongs to user "
            f"{found.st_uid} and this process runs as {os.geteuid()}. {_REMEDY}"
        )
    elif mode := stat.S_IMODE(found.st_mode) & 0o077:
        _note(
            f"{folder}: compiled kernels in it are ignored, because others may enter the folder "
            f"(its mode must be 700, got {mode | 0o700:o}). Make it private (chmod 700), or: "
            f"{_REMEDY}"
        )
    else:
        return True
    return False


_REMEDY = "Choose another folder with HFT_KERNELS=<folder>, or none with HFT_KERNELS=off"


@functools.cache  # once per process and message
def _note(message: str) -> None:
    log.warning("%s", message)


def _read(path: Path) -> bytes | None:
    """What was stored at `path`, or None where it is missing or not what was written."""
    try:
        content = path.read_bytes()
        # Once a day at most, so that a hit seldom writes.
        if time.time() - path.stat().st_mtime > 86_400:
            os.utime(path)  # it is in use: prune_kernels() goes by this
    except OSError:
        return None
    # A sha256 of 32 bytes stands before the payload.
    payload = content[32:]
    return payload if content[:32] == _digest(path.name, payload) else None


def _write(path: Path, payload: bytes) -> None:
    folder = path.parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not _is_private(folder):
            return
        # Not synced to the disk: a file that a power cut has truncated fails its hash.
        write_atomic(path, _digest(path.name, payload) + payload, durable=False)
    except (OSError, FileError) as error:
        _note(
            f"{folder}: compiled kernels cannot be kept ({error.__cause__ or error}), so every "
            f"process compiles them anew. {_REMEDY}"
        )
        return
    _prune_once(folder)


@functools.cache
def _prune_once(folder: Path) -> None:
    prune_kernels(folder)


def _digest(name: str, payload: bytes) -> bytes:
    """Over the name too: a file under the name of another is not what it says."""
    return hashlib.sha256(name.encode() + b"\0" + payload).digest()
