"""Arrays in, honest numbers out: how good the classes are, and what a list of trade returns supports.

Policies, everywhere: a class without rows counts 0 in precision, recall and F1; a figure that the data cannot carry is
None, never 0 or NaN; intervals are 95 % stationary bootstrap (Politis-Romano 1994) over rows in time order.
To add one: a function here, against a closed form, a slow twin or scipy in tests/test_statistics.py.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from hft.schema import CLASS_NAMES, NS_PER_DAY

N_CLASSES = len(CLASS_NAMES)
N_RESAMPLES = 2000
MIN_TRADES = 30  # fewer get no interval (QUANT 5.16)
MIN_BUCKETS, MIN_DAYS, DAILY_FROM_DAYS = 20, 5, 30  # QUANT 2, PnL series
NS_PER_HOUR = NS_PER_DAY // 24
SMALLEST_P = 1e-12


class Interval(NamedTuple):
    """A mean, None without rows, and its 95 % interval, None where fewer than MIN_TRADES rows carry it."""

    mean: float | None
    low: float | None
    high: float | None


class Sharpe(NamedTuple):
    """`yearly` and `psr` (probability that the true ratio is above 0) are None where `reason` says why."""

    yearly: float | None
    psr: float | None
    buckets: int
    bucket: str
    reason: str


# Classes: legend y_N int64 in 0..2 (rows without a label left out), p_N3 probabilities


def confusion(y_N: np.ndarray, predicted_N: np.ndarray) -> np.ndarray:
    """int64[true, predicted]."""
    return np.bincount(y_N * N_CLASSES + predicted_N, minlength=N_CLASSES**2).reshape(N_CLASSES, N_CLASSES)


def accuracy(counts_CC: np.ndarray) -> float:
    return float(np.trace(counts_CC) / max(counts_CC.sum(), 1))


def precision_recall(counts_CC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both per class."""
    hits = np.diag(counts_CC)
    return hits / np.maximum(counts_CC.sum(axis=0), 1), hits / np.maximum(counts_CC.sum(axis=1), 1)


def macro_f1(counts_CC: np.ndarray) -> float:
    """Mean over all classes, those without rows included."""
    f1 = 2 * np.diag(counts_CC) / np.maximum(counts_CC.sum(axis=0) + counts_CC.sum(axis=1), 1)
    return float(f1.mean())


def matthews(counts_CC: np.ndarray) -> float:
    """Multiclass correlation R_K (Gorodkin 2004); 0 where truth or prediction has one class only."""
    counts = counts_CC.astype(float)
    total, true, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    covariance = np.trace(counts) * total - true @ predicted
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0


def log_losses(p_N3: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """-ln p of the true class, per row; p at least SMALLEST_P."""
    return -np.log(np.maximum(p_N3[np.arange(len(y_N)), y_N], SMALLEST_P))


def brier(p_N3: np.ndarray, y_N: np.ndarray) -> float:
    """Sum over classes of squared errors, mean over rows: 0 to 2 (Brier 1950)."""
    return float(((p_N3 - np.eye(N_CLASSES)[y_N]) ** 2).sum(axis=1).mean())


def calibration_error(p_N3: np.ndarray, y_N: np.ndarray, *, n_bins: int = 15) -> float:
    """ECE of the likeliest class (Guo et al. 2017): equal-width bins, weighted by their rows."""
    confidence, right = p_N3.max(axis=1), p_N3.argmax(axis=1) == y_N
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(y_N))


def classification_metrics(p_N3: np.ndarray, y_N: np.ndarray, *, prior_C: np.ndarray) -> dict[str, float]:
    """Every class metric by name, beside the majority's: `prior_C` are class frequencies of the training rows.

    Empty for no rows. `majority_log_loss` is what forecasting `prior_C` at every row costs.
    """
    if not len(y_N):
        return {}
    counts = confusion(y_N, p_N3.argmax(axis=1))
    majority = confusion(y_N, np.full(len(y_N), prior_C.argmax()))
    precision, recall = precision_recall(counts)
    per_class = {f"precision_{c}": float(precision[k]) for k, c in enumerate(CLASS_NAMES)}
    per_class |= {f"recall_{c}": float(recall[k]) for k, c in enumerate(CLASS_NAMES)}
    return {
        "log_loss": float(log_losses(p_N3, y_N).mean()),
        "majority_log_loss": float(log_losses(np.tile(prior_C, (len(y_N), 1)), y_N).mean()),
        "macro_f1": macro_f1(counts),
        "majority_macro_f1": macro_f1(majority),
        "accuracy": accuracy(counts),
        "majority_accuracy": accuracy(majority),
        "mcc": matthews(counts),
        "brier": brier(p_N3, y_N),
        "calibration_error": calibration_error(p_N3, y_N),
        **per_class,
    }


def log_loss_excess(
    p_N3: np.ndarray, y_N: np.ndarray, *, prior_C: np.ndarray, seed: int, min_block: int = 10
) -> Interval:
    """Log loss minus that of the class frequencies, paired by row: skill is an interval wholly below 0 (QUANT 5.16).

    Labels overlap: give `min_block` their horizon in bars.
    """
    baseline = log_losses(np.tile(prior_C, (len(y_N), 1)), y_N)
    return mean_interval(log_losses(p_N3, y_N) - baseline, seed=seed, min_block=min_block)


# Trades: legend x_N one value per trade or row, in time order


def mean_interval(x_N: np.ndarray, *, seed: int, min_block: int = 10) -> Interval:
    """Mean with its percentile interval; blocks of max(min_block, N^(1/3)) rows on average."""
    if len(x_N) < MIN_TRADES:
        return Interval(float(x_N.mean()) if len(x_N) else None, None, None)
    means = bootstrap_means(x_N, mean_block=max(min_block, len(x_N) ** (1 / 3)), seed=seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(x_N.mean()), float(low), float(high))


def bootstrap_means(x_N: np.ndarray, *, mean_block: float, seed: int) -> np.ndarray:
    """Means of N_RESAMPLES stationary bootstrap samples: circular blocks of geometric length, uniform starts.

    A block's sum is a difference of running sums, so the work is the number of blocks and not of rows.
    """
    n, rng = len(x_N), np.random.default_rng(seed)
    running = np.concatenate([[0.0], np.cumsum(np.tile(x_N - x_N.mean(), 2))])
    per_sample = math.ceil(n / mean_block)
    # So many that their lengths fall short of n once in a million samples; the last block takes what is missing.
    n_blocks = min(n, per_sample + math.ceil(6 * math.sqrt(per_sample)) + 10)
    sums = np.empty(N_RESAMPLES)
    for i in range(N_RESAMPLES):
        ends = np.minimum(np.cumsum(rng.geometric(1 / mean_block, n_blocks)), n)
        ends[-1] = n
        starts = rng.integers(0, n, n_blocks)
        sums[i] = (running[starts + np.diff(ends, prepend=0)] - running[starts]).sum()
    return x_N.mean() + sums / n


def break_even(gross_bps_N: np.ndarray, *, seed: int) -> Interval:
    """The cost one way at which the trades earn nothing, bps: sum of gross / (2 n)."""
    return mean_interval(gross_bps_N / 2, seed=seed)


def max_drawdown(x_N: np.ndarray) -> float:
    """Largest fall of the running sum from its highest point so far, the start at 0 included; in x's unit, >= 0."""
    equity = np.concatenate([[0.0], np.cumsum(x_N)])
    return float((np.maximum.accumulate(equity) - equity).max())


def bucket_sums(ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int) -> tuple[np.ndarray, int]:
    """(sums per calendar bucket, its length in ns) over [start, end): UTC hours under 30 days, else UTC days.

    Empty buckets are zeros; a bucket that the period cuts counts as one.
    """
    length = NS_PER_HOUR if end - start < DAILY_FROM_DAYS * NS_PER_DAY else NS_PER_DAY
    first, last = start // length, (end - 1) // length
    return np.bincount(ts_N // length - first, weights=x_N, minlength=last - first + 1), length


def sharpe(ts_N: np.ndarray, x_N: np.ndarray, *, start: int, end: int) -> Sharpe:
    """Yearly Sharpe ratio (ddof 1, a year of 365 days) of `x_N` booked at `ts_N` on the calendar grid, and its PSR."""
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
    """PSR (Bailey and Lopez de Prado 2012): P(true ratio > `benchmark`), ratios per row, moments with ddof 0."""
    ratio = x_N.mean() / x_N.std(ddof=1)
    z = (x_N - x_N.mean()) / x_N.std()
    skew, kurtosis = (z**3).mean(), (z**4).mean()  # kurtosis not in excess of 3
    variance = max(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2, 1e-12)  # 0 for some two-valued returns
    return NormalDist().cdf(float((ratio - benchmark) * math.sqrt(len(x_N) - 1) / math.sqrt(variance)))
