"""Forecasts of classes and what came: how good the forecast is, beside the majority's, and curves
to look at.

In: p_N3 probabilities and y_N int64 in 0..2, rows without a label left out. Policies: a class
without rows counts 0 in precision, recall, F1 and PR-AUC; ties of a score are one threshold. To add
one: a function here, its value in `scores`, its line in hft/metrics.py, and a closed form or a slow
twin in tests/statistics/test_classes.py.

Legend: N rows, C classes, K points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hft.schema import CLASS_NAMES
from hft.statistics.bootstrap import Interval, mean_interval

N_CLASSES = len(CLASS_NAMES)
# A forecast that is certain and wrong costs 27.6 nats, not infinity.
SMALLEST_P = 1e-12


class Reliability(NamedTuple):
    """Of each bin of equal width that holds rows: the mean forecast, the share of rows where it
    came true, and how many rows.
    """

    forecast_K: np.ndarray
    share_K: np.ndarray
    rows_K: np.ndarray


class PrCurve(NamedTuple):
    """Falling thresholds: recall rises from above 0 to 1 where the class has rows."""

    recall_K: np.ndarray
    precision_K: np.ndarray


class Coverage(NamedTuple):
    """Of the most confident share of rows: the share that is right, and the share that the majority
    class would have right.
    """

    coverage_K: np.ndarray
    accuracy_K: np.ndarray
    majority_accuracy_K: np.ndarray


def confusion(y_N: np.ndarray, predicted_N: np.ndarray) -> np.ndarray:
    """int64[true, predicted]."""
    return np.bincount(y_N * N_CLASSES + predicted_N, minlength=N_CLASSES**2).reshape(
        N_CLASSES, N_CLASSES
    )


def accuracy(counts_CC: np.ndarray) -> float:
    return float(np.trace(counts_CC) / max(counts_CC.sum(), 1))


def precision_recall(counts_CC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both per class."""
    hits = np.diag(counts_CC)
    return hits / np.maximum(counts_CC.sum(axis=0), 1), hits / np.maximum(counts_CC.sum(axis=1), 1)


def macro_f1(counts_CC: np.ndarray) -> float:
    """Mean over all classes, those without rows included."""
    # No evidence by itself: shuffled labels reach .32 (docs/definitions.md 5.16).
    f1 = 2 * np.diag(counts_CC) / np.maximum(counts_CC.sum(axis=0) + counts_CC.sum(axis=1), 1)
    return float(f1.mean())


def matthews(counts_CC: np.ndarray) -> float:
    """Multiclass correlation R_K (Gorodkin 2004); 0 where truth or prediction has one class
    only.
    """
    # The product of four counts overflows int64 from some 55,000 rows on.
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


def reliability(forecast_N: np.ndarray, came_N: np.ndarray, *, n_bins: int = 15) -> Reliability:
    """Of class c, given `p_N3[:, c]` and `y_N == c`; of the likeliest class, given `p_N3.max(1)`
    and `p_N3.argmax(1) == y_N`.
    """
    # A forecast of exactly 1 belongs to the last bin.
    bins_N = np.minimum((forecast_N * n_bins).astype(int), n_bins - 1)
    rows_K = np.bincount(bins_N, minlength=n_bins)
    held = rows_K > 0
    forecast_K, came_K = (
        np.bincount(bins_N, weights=v, minlength=n_bins)[held] for v in (forecast_N, came_N)
    )
    return Reliability(forecast_K / rows_K[held], came_K / rows_K[held], rows_K[held])


def calibration_error(p_N3: np.ndarray, y_N: np.ndarray, *, n_bins: int = 15) -> float:
    """ECE of the likeliest class (Guo et al. 2017): equal-width bins, weighted by their rows."""
    found = reliability(p_N3.max(axis=1), p_N3.argmax(axis=1) == y_N, n_bins=n_bins)
    return float(np.abs(found.share_K - found.forecast_K) @ found.rows_K / len(y_N))


def pr_curve(score_N: np.ndarray, came_N: np.ndarray) -> PrCurve:
    """A point per distinct score; for a class without rows recall is 0 throughout."""
    order = np.argsort(-score_N, kind="stable")
    # A point inside a run of ties would depend on the order of rows. NaN differs from every score,
    # so the last row ends a run.
    last = np.flatnonzero(np.diff(score_N[order], append=np.nan) != 0)  # of each run of ties
    hits = np.cumsum(came_N[order])[last]
    return PrCurve(hits / max(came_N.sum(), 1), hits / (last + 1))


def average_precision(score_N: np.ndarray, came_N: np.ndarray) -> float:
    """Area under the steps of the precision-recall curve; a score that says nothing gets the
    class's share of rows.
    """
    recall_K, precision_K = pr_curve(score_N, came_N)
    # Steps: a line between two points would claim precision that no threshold reaches.
    return float(np.diff(recall_K, prepend=0.0) @ precision_K)


def coverage_accuracy(
    p_N3: np.ndarray, y_N: np.ndarray, *, prior_C: np.ndarray, n_points: int = 20
) -> Coverage:
    """At coverages 1/n_points .. 1. Equally confident rows count in row order; a coverage holds at
    least one row.
    """
    order = np.argsort(-p_N3.max(axis=1), kind="stable")
    rows_K = np.maximum(np.arange(1, n_points + 1) * len(y_N) // n_points, 1)
    right_N, majority_N = p_N3.argmax(axis=1) == y_N, y_N == prior_C.argmax()
    of_K, of_majority_K = (
        np.cumsum(right[order])[rows_K - 1] / rows_K for right in (right_N, majority_N)
    )
    return Coverage(rows_K / len(y_N), of_K, of_majority_K)


def scores(p_N3: np.ndarray, y_N: np.ndarray) -> dict[str, float]:
    """Every class metric by name; empty for no rows."""
    if not len(y_N):
        return {}
    # Over all rows at once: F1 is no mean of batches' F1s (docs/definitions.md 1).
    counts = confusion(y_N, p_N3.argmax(axis=1))
    precision_C, recall_C = precision_recall(counts)
    area_C = [average_precision(p_N3[:, c], y_N == c) for c in range(N_CLASSES)]
    per_class: dict[str, Sequence[float] | np.ndarray] = {
        "precision": precision_C,
        "recall": recall_C,
        "pr_auc": area_C,
    }
    return {
        "log_loss": float(log_losses(p_N3, y_N).mean()),
        "macro_f1": macro_f1(counts),
        "accuracy": accuracy(counts),
        "mcc": matthews(counts),
        "brier": brier(p_N3, y_N),
        "calibration_error": calibration_error(p_N3, y_N),
        **{
            f"{name}_{c}": float(values[k])
            for name, values in per_class.items()
            for k, c in enumerate(CLASS_NAMES)
        },
    }


def classification_metrics(
    p_N3: np.ndarray, y_N: np.ndarray, *, prior_C: np.ndarray
) -> dict[str, float]:
    """`scores` of the forecast, and as `majority_<name>` those of a forecast that says `prior_C`,
    the training rows' shares, at every row. Where rows differ in the classes on offer, `prior_C`
    has a row for each.
    """
    # `prior_C` is of training rows: the shares of the rows scored are known only afterwards.
    majority = scores(np.broadcast_to(prior_C, p_N3.shape), y_N)
    return scores(p_N3, y_N) | {f"majority_{name}": value for name, value in majority.items()}


def log_loss_excess(
    p_N3: np.ndarray, y_N: np.ndarray, *, prior_C: np.ndarray, seed: int, min_block: int = 10
) -> Interval:
    """Log loss minus that of the class frequencies, paired by row; an interval wholly below 0 shows
    skill (docs/definitions.md 5.16).

    Labels overlap: give `min_block` twice their horizon in bars (experiments/LOG.md). `prior_C` may
    have a row for each of `p_N3`.
    """
    # Paired by row: what both forecasts find hard cancels. With mean blocks of one horizon the
    # interval missed a true 0 in 8.3 % of 400 simulations, with two in 6.0 %, and longer blocks did
    # no better (experiments/LOG.md).
    baseline = log_losses(np.broadcast_to(prior_C, p_N3.shape), y_N)
    return mean_interval(log_losses(p_N3, y_N) - baseline, seed=seed, min_block=min_block)
