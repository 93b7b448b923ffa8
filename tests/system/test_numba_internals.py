"""Each private name of Numba does what we use it for; a new Numba fails here by the name."""

from __future__ import annotations

from numba import njit  # noqa: TID251 (the boundary itself is tested)

from hft.system import numba_internals


class Store:
    """Numba's protocol of a cache, which keeps bytes here."""

    cache_path = ""

    def __init__(self):
        self.kept, self.loaded = {}, 0

    def load_overload(self, signature, target_context):
        target_context.refresh()
        if payload := self.kept.get(str(signature)):
            self.loaded += 1
            return numba_internals.from_bytes(payload, target_context)
        return None

    def save_overload(self, signature, result):
        self.kept[str(signature)] = numba_internals.to_bytes(result)


def plus_one(x):
    return x + 1


def test_cache_of_a_dispatcher_and_reduce_and_rebuild_of_a_result():
    store = Store()
    for loaded in (0, 1):
        compiled = njit(plus_one)
        assert numba_internals.use_store(compiled, store)
        assert compiled(2) == 3
        assert (len(store.kept), store.loaded) == (1, loaded)


def test_a_plain_function_has_no_cache():
    assert not numba_internals.use_store(plus_one, Store())
