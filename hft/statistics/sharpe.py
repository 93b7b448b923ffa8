"""Sharpe ratios on a calendar grid, and how sure they are; none where the data carry none.

A figure that the data cannot carry is None with the reason beside it, never 0 or NaN. Legend: x_N
one return per trade, ts_N when it was booked (ns UTC), in time order.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from hft.clock import NS_PER_DAY, NS_PER_HOUR

MIN_BUCKETS, MIN_DAYS, DAILY_FROM_DAYS = 20, 5, 30  # docs/definitions.md 2, Returns


class Sharpe(NamedTuple):
    """`yearly` and `psr` (probability that the true ratio is above 0) are None where `reason` says
    why.
    """

    yearly: float | None
    psr: float | None
    buckets: int
    bucket: str
    reason: str


def sharpe(ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int) -> Sharpe:
    """Yearly ratio (ddof 1, a year of 365 days) of `x_N` booked at `ts_N` on the calendar grid of
    [start, end), and its PSR.
    """
    sums, length = bucket_sums(ts_N, x_N, start=start, end=end)
    bucket = "hour" if length == NS_PER_HOUR else "day"
    days = (end - start) / NS_PER_DAY
    reason = ""
    if len(sums) < MIN_BUCKETS or days < MIN_DAYS:
        least = f"{MIN_BUCKETS} buckets or {MIN_DAYS} days"
        reason = f"{days:.2f} days: nothing is annualised from under {least}"
    # ptp, because the deviation of equal values may round to above 0 and give a huge ratio.
    elif not np.ptp(sums) > 0:
        reason = "the returns do not vary"
    if reason:
        return Sharpe(None, None, len(sums), bucket, reason)
    per_bucket = sums.mean() / sums.std(ddof=1)
    # A market that never closes has 365 days a year.
    yearly = per_bucket * math.sqrt(365 * NS_PER_DAY / length)
    return Sharpe(float(yearly), probabilistic_sharpe(sums, benchmark=0.0), len(sums), bucket, "")


def bucket_sums(
    ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int
) -> tuple[np.ndarray, int]:
    """(sums per calendar bucket, its length in ns) over [start, end): UTC hours under 30 days, else
    UTC days.

    Empty buckets are zeros; a bucket that the period cuts counts as one.
    """
    length = NS_PER_HOUR if end - start < DAILY_FROM_DAYS * NS_PER_DAY else NS_PER_DAY
    # `end` itself is outside: a period up to midnight has no bucket of the next day.
    first, last = start // length, (end - 1) // length
    return np.bincount(ts_N // length - first, weights=x_N, minlength=last - first + 1), length


def probabilistic_sharpe(x_N: np.ndarray, *, benchmark: float) -> float:
    """PSR (Bailey and Lopez de Prado 2012): P(true ratio > `benchmark`), ratios per row, moments
    with ddof 0.
    """
    ratio = x_N.mean() / x_N.std(ddof=1)
    z = (x_N - x_N.mean()) / x_N.std()
    skew, kurtosis = (z**3).mean(), (z**4).mean()  # a normal distribution has kurtosis 3
    # The formula of docs/definitions.md 2.
    variance = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    variance = max(variance, 1e-12)  # it is 0 for some two-valued returns
    score = (ratio - benchmark) * math.sqrt(len(x_N) - 1) / math.sqrt(variance)
    return NormalDist().cdf(float(score))
