"""The rolling moments against numpy, one window at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.features._rolling import rolling_lag_covariance, rolling_slope

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
cells = st.one_of(st.integers(-1000, 1000).map(lambda k: k / 10), st.just(float("nan")))
pairs = st.lists(st.tuples(cells, cells), max_size=30)


def naive_slope(y, x):
    if len(y) == 0 or np.isnan(y).any() or np.isnan(x).any() or np.ptp(x) == 0:
        return np.nan
    return np.polynomial.polynomial.polyfit(x, y, 1)[1]


@SETTINGS
@given(pairs, st.integers(3, 8))
def test_slope_equals_least_squares(rows, window):
    y, x = np.array(rows, float).reshape(-1, 2).T
    expected = [
        naive_slope(y[max(i + 1 - window, 0) : i + 1], x[max(i + 1 - window, 0) : i + 1])
        for i in range(len(y))
    ]
    expected = [e if i + 1 >= window else np.nan for i, e in enumerate(expected)]
    np.testing.assert_allclose(rolling_slope(y, x, window), expected, rtol=1e-9, atol=1e-9)


@SETTINGS
@given(st.lists(cells, max_size=30), st.integers(3, 8))
def test_lag_covariance_equals_numpy(values, window):
    x = np.array(values, float)
    windows = [
        x[i + 1 - window : i + 1] if i + 1 >= window else np.array([np.nan] * 3)
        for i in range(len(x))
    ]
    expected = [np.cov(w[1:], w[:-1], ddof=1)[0, 1] for w in windows]
    np.testing.assert_allclose(rolling_lag_covariance(x, window), expected, rtol=1e-9, atol=1e-9)


def test_a_large_window_leaves_no_trace():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=60), rng.normal(size=60)
    shocked = x.copy()
    shocked[10] = 1e12
    assert np.array_equal(rolling_slope(y, shocked, 20)[30:], rolling_slope(y, x, 20)[30:])
    assert np.array_equal(
        rolling_lag_covariance(shocked, 20)[30:], rolling_lag_covariance(x, 20)[30:]
    )


def test_no_variance_beyond_rounding_is_unknown():
    x = np.full(10, 0.1)
    x[::2] += 1e-17
    assert np.isnan(rolling_slope(np.arange(10.0), x, 5)).all()
