"""The mean of rows in time order, with the interval that dependent rows allow.

Intervals are 95 % percentiles of the stationary bootstrap (Politis and Romano 1994). Legend: x_N
one value per trade or row, in time order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

N_RESAMPLES = 2000
MIN_TRADES = 30  # fewer rows get no interval (docs/definitions.md 5.16)


class Interval(NamedTuple):
    """A mean, None without rows, and the ends of its 95 % interval, None below MIN_TRADES rows."""

    mean: float | None
    low: float | None
    high: float | None


def mean_interval(x_N: np.ndarray, *, seed: int, min_block: int = 10) -> Interval:
    """Mean with its percentile interval; blocks of max(min_block, N^(1/3)) rows on average."""
    if len(x_N) < MIN_TRADES:
        return Interval(float(x_N.mean()) if len(x_N) else None, None, None)
    means = bootstrap_means(x_N, mean_block=max(min_block, len(x_N) ** (1 / 3)), seed=seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(x_N.mean()), float(low), float(high))


def bootstrap_means(x_N: np.ndarray, *, mean_block: float, seed: int) -> np.ndarray:
    """Means of N_RESAMPLES samples: circular blocks of geometric length, uniform starts.

    A block's sum is a difference of running sums, so the work is the number of blocks and not of
    rows.
    """
    n, rng = len(x_N), np.random.default_rng(seed)
    # The rows stand there twice, so that a block which runs over the end goes on at the start.
    # Their mean is taken off first, because running sums of a large level lose digits.
    running = np.concatenate([[0.0], np.cumsum(np.tile(x_N - x_N.mean(), 2))])
    per_sample = math.ceil(n / mean_block)
    # With so many blocks their lengths fall short of n once in a million samples; the last block
    # takes what is missing.
    n_blocks = min(n, per_sample + math.ceil(6 * math.sqrt(per_sample)) + 10)
    sums, ends = np.empty(N_RESAMPLES), np.zeros(n_blocks + 1, np.int64)
    for i in range(N_RESAMPLES):
        np.minimum(rng.geometric(1 / mean_block, n_blocks).cumsum(), n, out=ends[1:])
        ends[-1] = n
        starts = rng.integers(0, n, n_blocks)
        sums[i] = (running[starts + ends[1:] - ends[:-1]] - running[starts]).sum()
    return x_N.mean() + sums / n
