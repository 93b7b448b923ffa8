"""Trade statistics against loops, closed forms, hand values and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_DAY
from hft.statistics import returns as stats

HOUR = NS_PER_DAY // 24


def resampled_mean(x, mean_block, rng):
    """Politis and Romano's own words: go to the next row, or with probability 1/block to any
    row.
    """
    at, total = rng.integers(len(x)), 0.0
    for _ in range(len(x)):
        total += x[at]
        at = rng.integers(len(x)) if rng.random() < 1 / mean_block else (at + 1) % len(x)
    return total / len(x)


def test_bootstrap_spreads_like_its_twin():
    rng = np.random.default_rng(1)
    x = np.convolve(rng.normal(size=130), np.ones(8) / 8, mode="valid")  # dependent over 8 rows
    means = stats.bootstrap_means(x, mean_block=12, seed=0)
    twin = [resampled_mean(x, 12, rng) for _ in range(2000)]
    assert means.mean() == pytest.approx(x.mean(), abs=0.01)
    assert means.std() == pytest.approx(np.std(twin), rel=0.08)
    assert np.quantile(means, [0.025, 0.975]) == pytest.approx(
        np.quantile(twin, [0.025, 0.975]), abs=0.03
    )


def test_bootstrap_variance_is_the_published_one():
    """Politis and Romano (1994), lemma 1: circular autocovariances, weighted by how often a block
    spans them.
    """
    x = np.convolve(np.random.default_rng(3).normal(size=1007), np.ones(8) / 8, mode="valid")
    n, p = len(x), 1 / 20
    centred, lags = x - x.mean(), np.arange(1, len(x))
    covariance = np.array([centred @ np.roll(centred, k) / n for k in range(n)])
    variance = (covariance[0] + 2 * ((1 - lags / n) * (1 - p) ** lags * covariance[1:]).sum()) / n
    means = stats.bootstrap_means(x, mean_block=20, seed=0)
    assert means.std() == pytest.approx(math.sqrt(variance), rel=0.05)
    assert means.std() > 2 * x.std() / math.sqrt(n)  # wider than if rows were independent


def test_bootstrap_of_independent_rows_is_the_standard_error():
    x = np.random.default_rng(2).normal(5.0, 3.0, 4000)
    interval = stats.mean_interval(x, seed=0)
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert interval.mean == x.mean()
    assert (interval.low, interval.high) == pytest.approx(
        (x.mean() - half, x.mean() + half), abs=0.2 * half
    )
    assert stats.mean_interval(x, seed=0) == interval
    assert stats.mean_interval(x, seed=1) != interval


def test_the_interval_covers():
    """95 % intervals of 300 dependent rows hold the true mean 0 nearly so often (measured: 91 % of
    300 samples).
    """
    hits = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=304)
        interval = stats.mean_interval(np.convolve(noise, np.ones(5), mode="valid"), seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert hits / 60 > 0.85


def test_few_trades_get_no_interval():
    assert stats.mean_interval(np.ones(29), seed=0) == stats.Interval(1.0, None, None)
    assert stats.mean_interval(np.empty(0), seed=0) == stats.Interval(None, None, None)
    assert stats.mean_interval(np.ones(30), seed=0) == stats.Interval(1.0, 1.0, 1.0)


def test_break_even_is_half_the_mean_gross():
    gross = np.random.default_rng(0).normal(3, 10, 500)
    even, mean = stats.break_even(gross, seed=0), stats.mean_interval(gross, seed=0)
    assert even.mean == pytest.approx(gross.sum() / (2 * 500))
    assert (even.low, even.high) == pytest.approx((mean.low / 2, mean.high / 2))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), max_size=40))
def test_drawdown_against_all_pairs(x):
    equity = [0.0]
    for value in x:
        equity.append(equity[-1] + value)
    worst = max(equity[i] - equity[j] for i in range(len(equity)) for j in range(i, len(equity)))
    assert stats.max_drawdown(np.array(x)) == pytest.approx(worst, abs=1e-9)


def test_buckets_are_utc_hours_and_empty_ones_are_zero():
    start = 10 * NS_PER_DAY + HOUR // 2
    ts = np.array([start, start + HOUR // 2 - 1, start + HOUR // 2, start + 3 * HOUR])
    sums, length = stats.bucket_sums(
        ts, np.array([1.0, 2.0, 4.0, 8.0]), start=start, end=start + 4 * HOUR
    )
    assert length == HOUR
    assert sums.tolist() == [3.0, 4.0, 0.0, 8.0, 0.0]
    sums, length = stats.bucket_sums(ts, np.ones(4), start=start, end=start + 30 * NS_PER_DAY)
    assert length == NS_PER_DAY
    assert len(sums) == 31
    assert sums.sum() == 4


def test_sharpe_by_hand():
    rng = np.random.default_rng(0)
    start, days = 100 * NS_PER_DAY, 60
    ts = start + rng.integers(0, days * NS_PER_DAY, 500)
    x = rng.normal(1, 10, 500)
    daily = [sum(x[(ts - start) // NS_PER_DAY == d]) for d in range(days)]
    found = stats.sharpe(ts, x, start=start, end=start + days * NS_PER_DAY)
    per_day = np.mean(daily) / np.std(daily, ddof=1)
    assert found.yearly == pytest.approx(per_day * math.sqrt(365))
    assert (found.buckets, found.bucket, found.reason) == (60, "day", "")
    skew, kurtosis = scipy.stats.skew(daily), scipy.stats.kurtosis(daily, fisher=False)
    spread = math.sqrt(1 - skew * per_day + (kurtosis - 1) / 4 * per_day**2)
    assert found.psr == pytest.approx(scipy.stats.norm.cdf(per_day * math.sqrt(59) / spread))


@pytest.mark.parametrize(
    ("days", "given"), [(0.5, False), (4.9, False), (5, True), (29, True), (31, True)]
)
def test_sharpe_needs_days_and_buckets(days, given):
    rng = np.random.default_rng(0)
    end = int(days * NS_PER_DAY)
    found = stats.sharpe(rng.integers(0, end, 200), rng.normal(size=200), start=0, end=end)
    assert (found.yearly is not None) == given == (found.psr is not None)
    assert bool(found.reason) == (not given)


def test_sharpe_of_nothing_is_none():
    found = stats.sharpe(np.empty(0, np.int64), np.empty(0), start=0, end=10 * NS_PER_DAY)
    assert found.yearly is None
    assert "do not vary" in found.reason


def test_psr_of_normal_returns():
    """Without skew and excess kurtosis the ratio's variance is (1 + SR^2 / 2) / (T - 1) (Lo
    2002).
    """
    x = scipy.stats.norm.ppf((np.arange(2000) + 0.5) / 2000) + 0.05
    ratio = x.mean() / x.std(ddof=1)
    want = scipy.stats.norm.cdf(ratio * math.sqrt(1999) / math.sqrt(1 + ratio**2 / 2))
    assert stats.probabilistic_sharpe(x, benchmark=0.0) == pytest.approx(want, abs=1e-3)
    assert stats.probabilistic_sharpe(x, benchmark=ratio) == pytest.approx(0.5)
