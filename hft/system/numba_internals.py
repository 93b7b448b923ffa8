"""Every private name of Numba that we use: where its dispatcher keeps a store of compiled code, and
how a compile result becomes bytes.

tests/system/test_numba_internals.py has a test for each, which fails by its name.
"""

from __future__ import annotations

from typing import Any


def use_store(dispatcher: Any, store: Any) -> bool:
    """Makes the dispatcher ask `store` before it compiles; False where Numba is off
    (NUMBA_DISABLE_JIT=1) and there is no dispatcher, but the function itself.
    """
    if not hasattr(dispatcher, "_cache"):
        return False
    dispatcher._cache = store
    return True


def to_bytes(result: Any) -> bytes:
    """A compile result as bytes. Raises whatever Numba does for one that it cannot serialize."""
    from numba.core.serialize import dumps

    payload: bytes = dumps(result._reduce())
    return payload


def from_bytes(payload: bytes, target_context: Any) -> Any:
    """The compile result of `to_bytes`. This unpickles: only for bytes that nobody else can have
    written.
    """
    from numba.core.compiler import CompileResult
    from numba.core.serialize import loads

    return CompileResult._rebuild(target_context, *loads(payload))
