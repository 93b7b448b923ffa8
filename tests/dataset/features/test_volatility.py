"""Returns and volatilities against numpy, window by window, and against a simulated range."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from tests.dataset.features.market import feature


def random_frame(n=120, seed=0, n_steps=400, sigma=1e-4):
    """Bars of a random walk with `n_steps` steps each, so sd sigma * sqrt(n_steps) a bar; two
    segments.
    """
    steps = np.random.default_rng(seed).normal(0, sigma, (n, n_steps))
    path = np.cumsum(steps.ravel()).reshape(n, n_steps)
    opens = np.concatenate([[0.0], path[:-1, -1]])
    walk = np.column_stack([opens, path])
    price = 60_000 * np.exp(walk)
    columns = {
        "open": price[:, 0],
        "high": price.max(1),
        "low": price.min(1),
        "close": price[:, -1],
    }
    return pl.DataFrame(
        {"segment": np.repeat([0, 1], [n // 2, n - n // 2])} | columns | {"vwap": price.mean(1)}
    )


def by_segment(frame, statistic, window):
    """`statistic` of each full window of rows inside a segment, nan elsewhere."""
    out = []
    for part in frame.partition_by("segment", maintain_order=True):
        for i in range(part.height):
            out.append(statistic(part[i + 1 - window : i + 1]) if i + 1 >= window else np.nan)
    return out


def assert_equal(spec, frame, expected):
    np.testing.assert_allclose(
        spec.column(frame).fill_null(np.nan).to_numpy(), expected, rtol=1e-9, atol=1e-9
    )


def bps(ratio):
    return np.log(ratio) * 1e4


def test_log_return_over_several_bars():
    frame = random_frame()
    expected = by_segment(frame, lambda rows: bps(rows["close"][-1] / rows["close"][0]), 8)
    assert_equal(feature(kind="log_return", window=7), frame, expected)


def test_realised_volatility_is_the_root_of_summed_squares():
    frame = random_frame()
    expected = by_segment(
        frame, lambda rows: math.sqrt((np.diff(bps(rows["close"].to_numpy())) ** 2).sum()), 8
    )
    assert_equal(feature(kind="realised_volatility", window=7), frame, expected)


def test_parkinson_and_garman_klass_by_hand():
    frame = random_frame()

    def parkinson(rows):
        return math.sqrt((bps(rows["high"] / rows["low"]) ** 2).mean() / (4 * math.log(2)))

    def garman_klass(rows):
        span, body = bps(rows["high"] / rows["low"]), bps(rows["close"] / rows["open"])
        return math.sqrt((0.5 * span**2 - (2 * math.log(2) - 1) * body**2).mean())

    assert_equal(feature(kind="parkinson", window=9), frame, by_segment(frame, parkinson, 9))
    assert_equal(feature(kind="garman_klass", window=9), frame, by_segment(frame, garman_klass, 9))


@pytest.mark.parametrize("kind", ["parkinson", "garman_klass"])
def test_range_volatilities_find_the_volatility_of_a_walk(kind):
    frame = random_frame(600, n_steps=1000).with_columns(segment=pl.lit(0))
    truth = 1e-4 * math.sqrt(1000) * 1e4
    # A walk in 1000 steps misses a few per cent of the range of a continuous one.
    assert feature(kind=kind, window=600).column(frame)[-1] == pytest.approx(truth, rel=0.06)


def test_vwap_deviation():
    frame = pl.DataFrame({"close": [101.0, 99.0], "vwap": [100.0, 100.0]})
    assert feature(kind="vwap_deviation").column(frame).to_list() == pytest.approx([100.0, -100.0])


def test_a_price_that_stands_still_has_no_volatility():
    flat = pl.DataFrame(
        {"segment": [0] * 30} | dict.fromkeys(("open", "high", "low", "close"), [60_000.1] * 30)
    )
    moved = pl.concat([random_frame()[:30].select(flat.columns), flat])
    for kind in ("realised_volatility", "parkinson", "garman_klass"):
        assert feature(kind=kind, window=5).column(moved.with_columns(segment=pl.lit(0)))[-1] == 0.0
