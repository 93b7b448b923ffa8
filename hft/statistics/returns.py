"""Arrays in, honest numbers out: what a list of trade returns supports.

Policies, everywhere: a figure that the data cannot carry is None, never 0 or NaN; intervals are 95
% stationary bootstrap (Politis-Romano 1994) over rows in time order. Legend: x_N one value per
trade or row, in time order. To add one: a function here, against a closed form, a slow twin or
scipy in tests/test_statistics.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from hft.clock import NS_PER_DAY, NS_PER_HOUR
from hft.metrics import lower_is_better

N_RESAMPLES = 2000
MIN_TRADES = 30  # fewer get no interval (QUANT 5.16)
MIN_BUCKETS, MIN_DAYS, DAILY_FROM_DAYS = 20, 5, 30  # QUANT 2, PnL series


class Interval(NamedTuple):
    """A mean, None without rows, and its 95 % interval, None where fewer than MIN_TRADES rows carry
    it.
    """

    mean: float | None
    low: float | None
    high: float | None


class Sharpe(NamedTuple):
    """`yearly` and `psr` (probability that the true ratio is above 0) are None where `reason` says
    why.
    """

    yearly: float | None
    psr: float | None
    buckets: int
    bucket: str
    reason: str


def mean_interval(x_N: np.ndarray, *, seed: int, min_block: int = 10) -> Interval:
    """Mean with its percentile interval; blocks of max(min_block, N^(1/3)) rows on average."""
    if len(x_N) < MIN_TRADES:
        return Interval(float(x_N.mean()) if len(x_N) else None, None, None)
    means = bootstrap_means(x_N, mean_block=max(min_block, len(x_N) ** (1 / 3)), seed=seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(x_N.mean()), float(low), float(high))


def bootstrap_means(x_N: np.ndarray, *, mean_block: float, seed: int) -> np.ndarray:
    """Means of N_RESAMPLES stationary bootstrap samples: circular blocks of geometric length,
    uniform starts.

    A block's sum is a difference of running sums, so the work is the number of blocks and not of
    rows.
    """
    n, rng = len(x_N), np.random.default_rng(seed)
    running = np.concatenate([[0.0], np.cumsum(np.tile(x_N - x_N.mean(), 2))])
    per_sample = math.ceil(n / mean_block)
    # So many that their lengths fall short of n once in a million samples; the last block takes
    # what is missing.
    n_blocks = min(n, per_sample + math.ceil(6 * math.sqrt(per_sample)) + 10)
    sums, ends = np.empty(N_RESAMPLES), np.zeros(n_blocks + 1, np.int64)
    for i in range(N_RESAMPLES):
        np.minimum(rng.geometric(1 / mean_block, n_blocks).cumsum(), n, out=ends[1:])
        ends[-1] = n
        starts = rng.integers(0, n, n_blocks)
        sums[i] = (running[starts + ends[1:] - ends[:-1]] - running[starts]).sum()
    return x_N.mean() + sums / n


def break_even(gross_bps_N: np.ndarray, *, seed: int) -> Interval:
    """The cost one way at which the trades earn nothing, bps: sum of gross / (2 n)."""
    return mean_interval(gross_bps_N / 2, seed=seed)


def max_drawdown(x_N: np.ndarray) -> float:
    """Largest fall of the running sum from its highest point so far, the start at 0 included; in
    x's unit, >= 0.
    """
    equity = np.concatenate([[0.0], np.cumsum(x_N)])
    return float((np.maximum.accumulate(equity) - equity).max())


def bucket_sums(
    ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int
) -> tuple[np.ndarray, int]:
    """(sums per calendar bucket, its length in ns) over [start, end): UTC hours under 30 days, else
    UTC days.

    Empty buckets are zeros; a bucket that the period cuts counts as one.
    """
    length = NS_PER_HOUR if end - start < DAILY_FROM_DAYS * NS_PER_DAY else NS_PER_DAY
    first, last = start // length, (end - 1) // length
    return np.bincount(ts_N // length - first, weights=x_N, minlength=last - first + 1), length


def sharpe(ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int) -> Sharpe:
    """Yearly Sharpe ratio (ddof 1, a year of 365 days) of `x_N` booked at `ts_N` on the calendar
    grid, and its PSR.
    """
    sums, length = bucket_sums(ts_N, x_N, start=start, end=end)
    bucket = "hour" if length == NS_PER_HOUR else "day"
    days = (end - start) / NS_PER_DAY
    reason = ""
    if len(sums) < MIN_BUCKETS or days < MIN_DAYS:
        reason = f"{days:.2f} days: nothing is annualised from under {MIN_BUCKETS} buckets or {MIN_DAYS} days"
    elif not np.ptp(sums) > 0:
        reason = "the returns do not vary"
    if reason:
        return Sharpe(None, None, len(sums), bucket, reason)
    per_bucket = sums.mean() / sums.std(ddof=1)
    yearly = per_bucket * math.sqrt(365 * NS_PER_DAY / length)
    return Sharpe(float(yearly), probabilistic_sharpe(sums, benchmark=0.0), len(sums), bucket, "")


def probabilistic_sharpe(x_N: np.ndarray, *, benchmark: float) -> float:
    """PSR (Bailey and Lopez de Prado 2012): P(true ratio > `benchmark`), ratios per row, moments
    with ddof 0.
    """
    ratio = x_N.mean() / x_N.std(ddof=1)
    z = (x_N - x_N.mean()) / x_N.std()
    skew, kurtosis = (z**3).mean(), (z**4).mean()  # kurtosis not in excess of 3
    variance = max(
        1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2, 1e-12
    )  # 0 for some two-valued returns
    return NormalDist().cdf(
        float((ratio - benchmark) * math.sqrt(len(x_N) - 1) / math.sqrt(variance))
    )


def over_folds_and_seeds(
    seeds: Sequence[int], metrics: Sequence[Mapping[str, float | None]]
) -> dict[str, float | None]:
    """A run's metrics from those of its units, each with its seed: the mean over folds, then over
    seeds.

    With several seeds `<name>/sd` (ddof 1) and `<name>/worst` go along, over the seeds' means. None
    where any is None.
    """
    found: dict[str, float | None] = {}
    for name in metrics[0]:
        values: dict[int, list[float | None]] = {}
        for seed, unit in zip(seeds, metrics, strict=True):
            values.setdefault(seed, []).append(unit.get(name))
        if any(value is None for unit in values.values() for value in unit):
            found[name] = None
            continue
        means = np.array([np.mean(unit) for unit in values.values()])
        found[name] = float(means.mean())
        if len(means) > 1:
            worst = means.max() if lower_is_better(name) else means.min()
            found |= {f"{name}/sd": float(means.std(ddof=1)), f"{name}/worst": float(worst)}
    return found
