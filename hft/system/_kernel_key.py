"""What decides the machine code of a kernel, as one hash.

It reads the functions in memory: bytecode, constants and options of a function and of every
function that it reaches, and the values of the globals that they read. What is not understood
raises UnclearError, so that nothing is left out in silence.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from hft.spec import PACKAGE

LAYOUT = 1  # raise it when files are laid out differently: old ones are then never found
FOREIGN = ("math", "numpy")  # modules that kernels may use: their versions are in the key
LIBRARIES = ("numba", "llvmlite", "numpy")


class UnclearError(Exception):
    """What decides the compiled code is not fully known, so that it must not be kept."""


def kernel_key(dispatcher: Any, signature: Any, target_context: Any) -> str:
    """sha256 of all that decides the code of `dispatcher` for `signature`, as hexadecimal digits.

    Raises UnclearError for closures, functions of other packages, functions as arguments and
    globals of any other kind than numbers, strings, arrays, tuples and functions of hft.
    """
    from numba.core.sigutils import normalize_signature

    arguments, returned = normalize_signature(signature)
    parts = (
        LAYOUT,
        _describe_dispatcher(dispatcher, {}),
        tuple(_describe_type(argument) for argument in arguments),
        str(returned),
        target_context.codegen().magic_tuple(),  # triple, CPU and its features
        _versions(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _describe_dispatcher(dispatcher: Any, seen: dict[int, int]) -> Any:
    """All that decides the code of a function and of those it reaches, as text and tuples of it.

    `seen` numbers the functions on the way, because kernels may call themselves.
    """
    if id(dispatcher) in seen:
        return seen[id(dispatcher)]
    seen[id(dispatcher)] = len(seen)
    function = dispatcher.py_func
    if function.__closure__ is not None:
        raise UnclearError(f"{function.__qualname__} is a closure")
    # The key has the versions of LIBRARIES alone, so a change of any other package would go unseen.
    if not Path(function.__code__.co_filename).is_relative_to(PACKAGE):
        raise UnclearError(f"{function.__qualname__} is no function of hft")
    options = sorted((name, repr(value)) for name, value in dispatcher.targetoptions.items())
    named = {name: function.__globals__.get(name) for name in _global_names(function.__code__)}
    reached = {name: value for name, value in named.items() if _is_dispatcher(value)}
    own = (
        (function.__module__, function.__qualname__, options, _settings()),
        _describe_code(function.__code__),
        _describe_value(function.__defaults__),
        [(name, _describe_value(value)) for name, value in named.items() if name not in reached],
    )
    # Numba reads globals when it compiles a function and never again, so one that a test has
    # replaced since stays in the code of every caller that is compiled later.
    now = (own, [(name, id(value)) for name, value in reached.items()])
    if _compiled_with.setdefault(dispatcher, now) != now:
        raise UnclearError(f"what {function.__qualname__} reads has changed since it was compiled")
    return (own, [(name, _describe_dispatcher(value, seen)) for name, value in reached.items()])


_compiled_with: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@functools.cache
def _describe_code(code: CodeType) -> Any:
    constants = [
        _describe_code(value) if isinstance(value, CodeType) else _describe_constant(value)
        for value in code.co_consts
    ]
    # Line numbers and the file's name are left out: comments and moved lines change no key.
    names = (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return (code.co_code, code.co_exceptiontable, constants, names, counts)


def _describe_constant(value: Any) -> Any:
    # A set's order changes from process to process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


@functools.cache
def _global_names(code: CodeType) -> tuple[str, ...]:
    # Not co_names, which has attributes too: `np.sum` would also be read as a global `sum`.
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for value in code.co_consts:
        if isinstance(value, CodeType):
            names.update(_global_names(value))
    return tuple(sorted(names))


def _describe_value(value: Any) -> Any:
    """A global or a default, which numba compiles in as a constant."""
    import numpy as np

    if value is None or isinstance(value, bool | int | float | complex | str | np.generic):
        return (type(value).__name__, repr(value))
    if type(value) is tuple:
        return [_describe_value(item) for item in value]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return (str(value.dtype), value.shape, value.strides, value.tobytes())
    if isinstance(value, ModuleType) and value.__name__.partition(".")[0] in FOREIGN:
        return value.__name__
    if isinstance(value, type) and issubclass(value, BaseException):
        return (value.__module__, value.__qualname__)
    if _is_named_tuple(value):
        return _describe_named_tuple(value)
    raise UnclearError(f"a global is {value!r}")


def _describe_type(kind: Any) -> Any:
    """An argument's type: numbers, arrays and tuples of them, numpy's generators.

    Its name alone is ambiguous: two named tuples of one name would share code that reads their
    fields by position.
    """
    from numba import types

    name = type(kind).__name__
    # A generator's functions are looked up in the object that is passed, when it is passed.
    simple = (
        types.Number,
        types.Boolean,
        types.NoneType,
        types.UnicodeType,
        types.NumPyRandomGeneratorType,
    )
    if isinstance(kind, types.BaseTuple):
        members: Any = kind  # numba's types say too little of themselves
        owner = getattr(kind, "instance_class", None)
        return (name, owner and _describe_named_tuple(owner), [_describe_type(t) for t in members])
    if isinstance(kind, types.Omitted):
        return (name, _describe_value(kind.value))
    if isinstance(kind.dtype if isinstance(kind, types.Array) else kind, simple):
        return (name, str(kind))
    raise UnclearError(f"an argument is {kind}")


def _is_dispatcher(value: Any) -> bool:
    return isinstance(getattr(value, "py_func", None), FunctionType)


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
