from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.labels import build_labels, effective_labels, train_weights
from hft.dataset.labels._weights import attributed_returns, average_uniqueness, end_bars, time_decay
from tests.dataset.labels.hand import label_spec, market


@st.composite
def lives(draw):
    """Row of the bar in which each label ends, -1 for none."""
    n = draw(st.integers(1, 25))
    return np.array(
        [-1 if t == n - 1 else draw(st.sampled_from([-1, *range(t + 1, n)])) for t in range(n)]
    )


def naive_shared(ends, values):
    alive = {t: [i for i, e in enumerate(ends) if i < t <= e] for t in range(len(ends))}
    return [
        sum(values[t] / len(alive[t]) for t in range(i + 1, e + 1)) if e >= 0 else 0.0
        for i, e in enumerate(ends)
    ]


@settings(deadline=None, derandomize=True)
@given(lives())
def test_uniqueness_is_the_mean_share_of_each_bar(ends):
    shares = naive_shared(ends, np.ones(ends.size))
    expected = [
        s / (e - i) if e >= 0 else 0.0 for i, (s, e) in enumerate(zip(shares, ends, strict=True))
    ]
    np.testing.assert_allclose(average_uniqueness(ends), expected, atol=1e-12)


@settings(deadline=None, derandomize=True)
@given(lives(), st.integers(0, 2**31))
def test_attributed_return_is_the_size_of_the_shares_of_returns(ends, seed):
    close = np.exp(np.random.default_rng(seed).normal(0, 0.01, ends.size).cumsum())
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    expected = np.abs(naive_shared(ends, returns))
    np.testing.assert_allclose(attributed_returns(ends, close), expected, atol=1e-14)


def test_hand_values():
    # Label 0 lives in bars 1-2, label 1 in bars 2-3, label 3 in bar 4 alone.
    ends = np.array([2, 3, -1, 4, -1])
    assert average_uniqueness(ends).tolist() == [0.75, 0.75, 0.0, 1.0, 0.0]
    close = np.exp([0.0, 0.01, 0.03, 0.02, 0.0])
    assert attributed_returns(ends, close) == pytest.approx([0.02, 0.0, 0.0, 0.02, 0.0])


def test_a_hundred_identical_spans_are_one_label_and_disjoint_ones_count_in_full():
    _, bars, labels = overlapping(n=300, horizon=100)
    rows_T = labels["y"].is_not_null().to_numpy()
    # 200 labels that live 100 bars each, one bar later each: as many independent ones as 299 bars
    # hold.
    assert effective_labels(labels, bars, rows_T=rows_T) == pytest.approx(299 / 100, rel=0.15)
    assert effective_labels(
        labels, bars, rows_T=rows_T & (np.arange(300) % 100 == 0)
    ) == pytest.approx(2.0)
    assert effective_labels(labels, bars, rows_T=np.zeros(300, bool)) == 0.0


def overlapping(*, n, horizon, **changes):
    """Labels of a barrier that is never touched: each lives exactly `horizon` bars."""
    ticks, bars = market([[(10 * i, 100.0 + 0.01 * (i % 2))] for i in range(n)])
    spec = label_spec("fixed_horizon", horizon=horizon, latency_ms=0.0, **changes)
    return spec, bars, build_labels(ticks, bars, spec)


def test_a_label_ends_in_the_bar_that_holds_its_last_print():
    _, bars, labels = overlapping(n=10, horizon=3)
    assert end_bars(bars, labels).tolist() == [3, 4, 5, 6, 7, 8, 9, -1, -1, -1]
    # A print at the very time at which the bar before it closed belongs to a later bar.
    tied = labels.with_columns(
        t_end=pl.when(pl.col("bar") == 2).then(bars["ts"][2]).otherwise("t_end")
    )
    assert end_bars(bars, tied)[2] == 3


@pytest.mark.parametrize("weights", ["none", "uniqueness", "return"])
def test_the_column_of_labels_holds_what_the_spec_chose(weights):
    _, bars, labels = overlapping(n=40, horizon=4, weights=weights)
    ends = end_bars(bars, labels)
    known = ends >= 0
    chosen = {
        "none": np.ones(40),
        "uniqueness": average_uniqueness(ends),
        "return": attributed_returns(ends, bars["close"].to_numpy()),
    }
    np.testing.assert_array_equal(labels["weight"].to_numpy()[known], chosen[weights][known])
    assert labels["weight"].is_null().to_numpy().tolist() == (~known).tolist()


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (1.0, [1.0, 1.0, 1.0, 1.0]),
        (0.5, [0.625, 0.75, 0.875, 1.0]),
        (0.0, [0.25, 0.5, 0.75, 1.0]),
        (-0.5, [0.0, 0.0, 0.5, 1.0]),  # the oldest half weighs nothing
    ],
)
def test_time_decay_is_linear_in_cumulated_uniqueness(decay, expected):
    assert time_decay(np.full(4, 0.3), decay) == pytest.approx(expected)
    assert time_decay(np.array([0.3, 0.0, 0.3, 0.3, 0.3]), decay)[[0, 2, 3, 4]] == pytest.approx(
        expected
    )


def test_time_decay_of_no_label_is_none():
    assert time_decay(np.zeros(3), 0.5).tolist() == [1.0] * 3


def test_decay_runs_over_the_training_rows_alone():
    spec, bars, labels = overlapping(n=60, horizon=5, decay=0.2, weights="uniqueness")
    rows_T = np.arange(60) < 20
    weight = train_weights(labels, bars, spec, rows_T=rows_T)
    raw = labels["weight"].fill_null(0.0).to_numpy()
    factor = weight[:20] / raw[:20]
    assert factor[-1] == pytest.approx(1.0)
    assert (np.diff(factor) > 0).all()
    assert 0.2 < factor[0] < 0.3
    assert (weight[20:] == 0).all()
    flat, _, _ = overlapping(n=60, horizon=5, weights="uniqueness")
    np.testing.assert_array_equal(
        train_weights(labels, bars, flat, rows_T=rows_T), np.where(rows_T, raw, 0.0)
    )
