"""The stationary bootstrap against its words, its published variance and the standard error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hft.statistics.bootstrap import Interval, bootstrap_means, mean_interval


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
    means = bootstrap_means(x, mean_block=12, seed=0)
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
    means = bootstrap_means(x, mean_block=20, seed=0)
    assert means.std() == pytest.approx(math.sqrt(variance), rel=0.05)
    assert means.std() > 2 * x.std() / math.sqrt(n)  # wider than if rows were independent


def test_bootstrap_of_independent_rows_is_the_standard_error():
    x = np.random.default_rng(2).normal(5.0, 3.0, 4000)
    interval = mean_interval(x, seed=0)
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert interval.mean == x.mean()
    assert (interval.low, interval.high) == pytest.approx(
        (x.mean() - half, x.mean() + half), abs=0.2 * half
    )
    assert mean_interval(x, seed=0) == interval
    assert mean_interval(x, seed=1) != interval


def test_the_interval_covers():
    """95 % intervals of 300 dependent rows hold the true mean 0 nearly so often (measured: 91 % of
    300 samples).
    """
    hits = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=304)
        interval = mean_interval(np.convolve(noise, np.ones(5), mode="valid"), seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert hits / 60 > 0.85


def test_few_trades_get_no_interval():
    assert mean_interval(np.ones(29), seed=0) == Interval(1.0, None, None)
    assert mean_interval(np.empty(0), seed=0) == Interval(None, None, None)
    assert mean_interval(np.ones(30), seed=0) == Interval(1.0, 1.0, 1.0)
