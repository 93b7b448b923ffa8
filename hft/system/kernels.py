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
import dis
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from hft.spec import PACKAGE
from hft.system.files import FileError, write_atomic

LAYOUT = 1  # raise it when files are laid out differently: old ones are then never found
SUFFIX = ".kernel"
KEEP_DAYS = 30  # what no process has read for so long goes
FOREIGN = ("math", "numpy")  # modules that kernels may use: their versions are in the key
LIBRARIES = ("numba", "llvmlite", "numpy")

log = logging.getLogger(__name__)


class _Unclear(Exception):
    """What decides the compiled code is not fully known; never leaves this module."""


def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compiles `function` for each signature it is called with; `options` are njit's.

    Use it bare or with options: `@kernel`, `@kernel(nogil=True, error_model="numpy")`.
    """
    if function is None:
        return functools.partial(kernel, **options)
    from numba import njit

    compiled = njit(**options)(function)
    if hasattr(compiled, "_cache"):  # with NUMBA_DISABLE_JIT=1 it is the function itself
        compiled._cache = _Store(compiled)
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
    """Removes the kernels that no process has read for `days`, and what killed writers left."""
    removed = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
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
        if (folder := default_folder()) is None:
            return None
        try:
            target_context.refresh()
            name = self._name(signature, target_context)
            if not _is_private(folder) or (payload := _read(folder / name)) is None:
                return None
            from numba.core.compiler import CompileResult
            from numba.core.serialize import loads

            # This unpickles. It is safe as far as this user's own code is: see the module's head.
            return CompileResult._rebuild(target_context, *loads(payload))
        except _Unclear:
            return None
        except Exception as error:  # whatever it is, compiling again is right
            log.debug("compiled %s cannot be read: %r", self.dispatcher, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        folder = default_folder()
        if folder is None or result.library.has_dynamic_globals or result.lifted:
            return
        try:
            name = self._name(signature, result.target_context)
            from numba.core.serialize import dumps

            payload = dumps(result._reduce())
        except _Unclear as error:
            log.debug("compiled %s is not kept: %s", self.dispatcher, error)
            return
        except Exception as error:  # numba could not serialize it: only time is lost
            log.debug("compiled %s cannot be kept: %r", self.dispatcher, error)
            return
        _write(folder / name, payload)

    def enable(self) -> None:
        """Numba's protocol; HFT_KERNELS decides."""

    def disable(self) -> None:
        """Numba's protocol; HFT_KERNELS decides."""

    def flush(self) -> None:
        """Numba's protocol, called by recompile(): nothing here can be out of date."""

    def _name(self, signature: Any, target_context: Any) -> str:
        from numba.core.sigutils import normalize_signature

        arguments, returned = normalize_signature(signature)
        parts = (
            LAYOUT,
            _describe_dispatcher(self.dispatcher, {}),
            tuple(_describe_type(argument) for argument in arguments),
            str(returned),
            target_context.codegen().magic_tuple(),  # triple, CPU and its features
            _versions(),
            _settings(),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest() + SUFFIX


def _describe_dispatcher(dispatcher: Any, seen: dict[int, int]) -> Any:
    """Everything of a compiled function that decides its code, as text and tuples of it.

    `seen` numbers the functions on the way, because kernels may call themselves.
    """
    function = dispatcher.py_func
    if id(dispatcher) in seen:
        return seen[id(dispatcher)]
    seen[id(dispatcher)] = len(seen)
    if function.__closure__ is not None:
        raise _Unclear(f"{function.__qualname__} is a closure")
    if not Path(function.__code__.co_filename).is_relative_to(PACKAGE):
        raise _Unclear(f"{function.__qualname__} is no function of hft")
    values = function.__globals__
    return (
        function.__module__,
        function.__qualname__,
        _describe_code(function.__code__),
        _describe_value(function.__defaults__, seen),
        sorted((name, repr(value)) for name, value in dispatcher.targetoptions.items()),
        [
            (name, _describe_value(values[name], seen))
            for name in _global_names(function.__code__)
            if name in values  # else it is a builtin
        ],
    )


@functools.cache
def _describe_code(code: CodeType) -> Any:
    constants = [
        _describe_code(value) if isinstance(value, CodeType) else _describe_constant(value)
        for value in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return (code.co_code, code.co_exceptiontable, constants, names, counts)


def _describe_constant(value: Any) -> Any:
    # A set's order changes from process to process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


@functools.cache
def _global_names(code: CodeType) -> tuple[str, ...]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for value in code.co_consts:
        if isinstance(value, CodeType):
            names.update(_global_names(value))
    return tuple(sorted(names))


def _describe_value(value: Any, seen: dict[int, int]) -> Any:
    """A global or a default, which numba compiles in as a constant."""
    import numpy as np

    if value is None or isinstance(value, bool | int | float | complex | str | np.generic):
        return (type(value).__name__, repr(value))
    if type(value) is tuple:
        return [_describe_value(item, seen) for item in value]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return (str(value.dtype), value.shape, value.strides, value.tobytes())
    if isinstance(value, ModuleType) and value.__name__.partition(".")[0] in FOREIGN:
        return value.__name__
    if isinstance(value, type) and issubclass(value, BaseException):
        return (value.__module__, value.__qualname__)
    if _is_named_tuple(value):
        return _describe_named_tuple(value)
    if hasattr(value, "py_func") and isinstance(value.py_func, FunctionType):
        return _describe_dispatcher(value, seen)
    raise _Unclear(f"a global is {value!r}")


def _describe_type(kind: Any) -> Any:
    """An argument's type: numbers, arrays and tuples of them, numpy's generators.

    Its name alone is ambiguous: two named tuples of one name would share code that reads their
    fields by position.
    """
    from numba import types

    simple = (
        types.Number
        | types.Boolean
        | types.NoneType
        | types.UnicodeType
        # Its functions are looked up in the object that is passed, when it is passed.
        | types.NumPyRandomGeneratorType
    )

    if isinstance(kind, types.BaseTuple):
        owner = getattr(kind, "instance_class", tuple)
        named = _describe_named_tuple(owner) if _is_named_tuple(owner) else ()
        return (type(kind).__name__, named, [_describe_type(item) for item in kind])
    if isinstance(kind, types.Array):
        if isinstance(kind.dtype, types.Number | types.Boolean):
            return (type(kind).__name__, str(kind))
    elif isinstance(kind, simple):
        return (type(kind).__name__, str(kind))
    elif isinstance(kind, types.Omitted):
        return (type(kind).__name__, _describe_value(kind.value, {}))
    raise _Unclear(f"an argument is {kind}")


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")


def _describe_named_tuple(owner: Any) -> Any:
    return (owner.__module__, owner.__qualname__, owner._fields)


@functools.cache
def _versions() -> tuple[str, ...]:
    libraries = (f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (platform.python_implementation(), platform.python_version(), *libraries)


def _settings() -> list[tuple[str, str]]:
    """Numba's switches (NUMBA_BOUNDSCHECK, NUMBA_OPT, ...), but for the number of threads."""
    from numba import config

    return sorted(
        (name, repr(value))
        for name, value in vars(config).items()
        if name.isupper() and "THREAD" not in name and isinstance(value, bool | int | float | str)
    )


def _is_private(folder: Path) -> bool:
    """Whether `folder` exists, is this user's, and lets nobody else in; says so where it does."""
    try:
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
        if time.time() - path.stat().st_mtime > 86_400:
            os.utime(path)  # it is in use: prune_kernels() goes by this
    except OSError:
        return None
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
