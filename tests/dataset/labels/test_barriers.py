from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.barriers import first_touch


def naive_touch(price, first, stop, upper, lower):
    for i in range(first, stop):
        if price[i] >= upper:
            return i, 1
        if price[i] <= lower:
            return i, -1
    return stop, 0


def bars_over(price, sizes, offset):
    bounds = offset + np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    inside = [price[a:b] for a, b in pairwise(bounds)]
    return np.array([p.max() for p in inside]), np.array([p.min() for p in inside]), bounds


@st.composite
def searches(draw):
    """Prints with some before the first bar and some after the last, and any range among them."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    n = before + sum(sizes) + after
    price = np.array(draw(st.lists(st.integers(90, 110), min_size=n, max_size=n)), float)
    first = draw(st.integers(0, n))
    stop = draw(st.integers(first, n))
    upper = draw(st.sampled_from([math.inf, 103.0, 108.0, 110.0]))
    lower = draw(st.sampled_from([-math.inf, 92.0, 97.0, 90.0]))
    return price, *bars_over(price, sizes, before), first, stop, upper, lower


@settings(deadline=None, derandomize=True)
@given(searches())
def test_first_touch_equals_reading_every_print(search):
    price, highs, lows, bounds, first, stop, upper, lower = search
    expected = naive_touch(price, first, stop, upper, lower)
    assert first_touch(price, highs, lows, bounds, first, stop, upper, lower) == expected


def test_a_touch_is_inclusive_and_the_first_one_counts():
    price = np.array([100.0, 101.0, 99.0, 102.0])
    highs, lows, bounds = bars_over(price, [4], 0)
    assert first_touch(price, highs, lows, bounds, 0, 4, 101.0, 99.0) == (1, 1)
    assert first_touch(price, highs, lows, bounds, 2, 4, 101.0, 99.0) == (2, -1)
    assert first_touch(price, highs, lows, bounds, 0, 4, 101.5, 98.0) == (3, 1)


def test_unknown_barriers_are_never_touched():
    price = np.array([100.0, 1e9, 1e-9])
    highs, lows, bounds = bars_over(price, [3], 0)
    assert first_touch(price, highs, lows, bounds, 0, 3, math.inf, -math.inf) == (3, 0)
    assert first_touch(price, highs, lows, bounds, 0, 3, math.nan, math.nan) == (3, 0)
