from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.labels._volatility import ewma_volatility


def naive_volatility(close, segment, span):
    """Each bar from scratch: the recursion of docs/definitions.md 5.11 over the returns of its own
    segment so far.
    """
    a, out = 2 / (span + 1), []
    for t in range(len(close)):
        start = next(i for i in range(len(close)) if segment[i] == segment[t])
        squares = [math.log(close[i] / close[i - 1]) ** 2 for i in range(start + 1, t + 1)]
        if len(squares) <= span:
            out.append(math.nan)
            continue
        variance = squares[0]
        for square in squares[1:]:
            variance = (1 - a) * variance + a * square
        out.append(math.sqrt(variance))
    return out


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(90, 110), st.sampled_from([0, 0, 0, 1])), max_size=30),
    st.integers(1, 5),
)
def test_equals_the_recursion_from_scratch(steps, span):
    close = np.array([float(price) for price, _ in steps])
    segment = np.cumsum(np.array([gap for _, gap in steps], np.int64))
    expected = naive_volatility(close, segment, span)
    np.testing.assert_allclose(ewma_volatility(close, segment, span), expected, rtol=1e-12)


def test_hand_values_with_a_of_one_half():
    close = np.exp(np.array([0.0, 0.01, 0.03, 0.0, 0.02, 0.02]))
    # span 3: a = 1/2; r^2 in units of 1e-4: 1, 4, 9, 4, 0; s2: 1, 2.5, 5.75, 4.875, 2.4375; known
    # from the 4th on
    got = ewma_volatility(close, np.zeros(6, np.int64), 3)
    assert np.isnan(got[:4]).all()
    assert got[4] == pytest.approx(math.sqrt(4.875e-4), rel=1e-9)
    assert got[5] == pytest.approx(math.sqrt(2.4375e-4), rel=1e-9)
