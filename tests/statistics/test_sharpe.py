"""Sharpe ratios and their certainty against hand values, closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from hft.clock import NS_PER_DAY, NS_PER_HOUR
from hft.statistics.sharpe import bucket_sums, probabilistic_sharpe, sharpe


def test_buckets_are_utc_hours_and_empty_ones_are_zero():
    start = 10 * NS_PER_DAY + NS_PER_HOUR // 2
    ts = np.array(
        [start, start + NS_PER_HOUR // 2 - 1, start + NS_PER_HOUR // 2, start + 3 * NS_PER_HOUR]
    )
    sums, length = bucket_sums(
        ts, np.array([1.0, 2.0, 4.0, 8.0]), start=start, end=start + 4 * NS_PER_HOUR
    )
    assert length == NS_PER_HOUR
    assert sums.tolist() == [3.0, 4.0, 0.0, 8.0, 0.0]
    sums, length = bucket_sums(ts, np.ones(4), start=start, end=start + 30 * NS_PER_DAY)
    assert length == NS_PER_DAY
    assert len(sums) == 31
    assert sums.sum() == 4


def test_sharpe_by_hand():
    rng = np.random.default_rng(0)
    start, days = 100 * NS_PER_DAY, 60
    ts = start + rng.integers(0, days * NS_PER_DAY, 500)
    x = rng.normal(1, 10, 500)
    daily = [sum(x[(ts - start) // NS_PER_DAY == d]) for d in range(days)]
    found = sharpe(ts, x, start=start, end=start + days * NS_PER_DAY)
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
    found = sharpe(rng.integers(0, end, 200), rng.normal(size=200), start=0, end=end)
    assert (found.yearly is not None) == given == (found.psr is not None)
    assert bool(found.reason) == (not given)


def test_sharpe_of_nothing_is_none():
    found = sharpe(np.empty(0, np.int64), np.empty(0), start=0, end=10 * NS_PER_DAY)
    assert found.yearly is None
    assert "do not vary" in found.reason


def test_psr_of_normal_returns():
    """Without skew and excess kurtosis the ratio's variance is (1 + SR^2 / 2) / (T - 1) (Lo
    2002).
    """
    x = scipy.stats.norm.ppf((np.arange(2000) + 0.5) / 2000) + 0.05
    ratio = x.mean() / x.std(ddof=1)
    want = scipy.stats.norm.cdf(ratio * math.sqrt(1999) / math.sqrt(1 + ratio**2 / 2))
    assert probabilistic_sharpe(x, benchmark=0.0) == pytest.approx(want, abs=1e-3)
    assert probabilistic_sharpe(x, benchmark=ratio) == pytest.approx(0.5)
