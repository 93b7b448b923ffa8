"""What a fitted fold shows to whoever reviews the run: figures and tables of `select`, feature
importance on `tune`.

In: the classifier, the rows that judge it, and its forecast. Out: figures and tables on a Tracker;
nothing is computed for a tracker that keeps nothing. To add one: a function here that shows it,
called by `review_fold`.

Legend: T bars, N rows, C classes, P padded bars, F features.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch.nn.functional import pad

from hft.dataset.rows import Dataset
from hft.learning.classifier import Classifier
from hft.learning.dense import dense_logits
from hft.learning.insight import gate_activity, permutation_importance
from hft.report.figures import (
    plot_confusion,
    plot_coverage,
    plot_gates,
    plot_importance,
    plot_pr_curves,
    plot_reliability,
)
from hft.schema import CLASS_NAMES
from hft.statistics.classes import (
    average_precision,
    calibration_error,
    confusion,
    coverage_accuracy,
    pr_curve,
    reliability,
)
from hft.tracking.tracker import Tracker

# The last rows of tune: one pass per feature over all of them would take longer than an epoch.
IMPORTANCE_ROWS = 20_000
N_SHOWN = 500  # predictions in the table
N_PARTS = 60  # of select, for the gates


def review_fold(
    tracker: Tracker,
    classifier: Classifier,
    dataset: Dataset,
    rows: dict[str, np.ndarray],
    p_T3: np.ndarray,
    prior_C: np.ndarray,
    *,
    prefix: str,
) -> None:
    """`rows` are the labelled, usable rows of `tune` and `select`; those without a forecast (nan)
    are left out. Where `p_T3` is 0, for classes not on offer, so is the uncalibrated forecast.
    """
    # Importance alone costs a dense pass per feature.
    if not tracker.keeps:
        return
    select_T = rows["select"] & ~np.isnan(p_T3).any(axis=1)
    if select_T.any():
        p_N3, y_N = p_T3[select_T], dataset.y_T[select_T]
        _show_confusion(tracker, p_N3, y_N, prefix)
        _show_curves(tracker, p_N3, y_N, prior_C, prefix)
        x_PF, near_T = _network_input(classifier, dataset, select_T)
        _show_reliability(tracker, _uncalibrated(classifier, x_PF, near_T, p_N3), p_N3, y_N, prefix)
        _show_gates(tracker, classifier, x_PF, near_T, dataset.ts_T[select_T], prefix)
        _show_predictions(tracker, dataset, select_T, p_T3, prefix)
    if rows["tune"].any():
        _show_importance(tracker, classifier, dataset, rows["tune"], prefix)


def _show_confusion(tracker: Tracker, p_N3: np.ndarray, y_N: np.ndarray, prefix: str) -> None:
    # By the likeliest class. The strategy's threshold is another question, and the ledger's.
    counts_CC = confusion(y_N, p_N3.argmax(axis=1))
    columns = {f"predicted_{name}": counts_CC[:, c] for c, name in enumerate(CLASS_NAMES)}
    tracker.table(f"{prefix}select/confusion", pl.DataFrame({"true": CLASS_NAMES} | columns))
    title = f"{prefix}select: {np.trace(counts_CC) / len(y_N):.1%} of {len(y_N):,} rows right"
    tracker.figure(f"{prefix}select/confusion_matrix", plot_confusion(counts_CC, title=title))


def _show_curves(
    tracker: Tracker, p_N3: np.ndarray, y_N: np.ndarray, prior_C: np.ndarray, prefix: str
) -> None:
    curves = {name: pr_curve(p_N3[:, c], y_N == c) for c, name in enumerate(CLASS_NAMES)}
    averages = {name: average_precision(p_N3[:, c], y_N == c) for c, name in enumerate(CLASS_NAMES)}
    title = f"{prefix}select: precision and recall"
    figure = plot_pr_curves(curves, averages=averages, title=title)
    tracker.figure(f"{prefix}select/pr_curves", figure)
    curve = coverage_accuracy(p_N3, y_N, prior_C=prior_C)
    title = f"{prefix}select: accuracy of the rows answered"
    tracker.figure(f"{prefix}select/coverage", plot_coverage(curve, title=title))


def _show_reliability(
    tracker: Tracker, raw_N3: np.ndarray, p_N3: np.ndarray, y_N: np.ndarray, prefix: str
) -> None:
    # Both, because focal loss distorts probabilities and the calibration has to undo that
    # (docs/design.md 6).
    forecasts = {"before calibration": raw_N3, "after": p_N3}
    found = {
        name: reliability(q_N3.max(axis=1), q_N3.argmax(axis=1) == y_N)
        for name, q_N3 in forecasts.items()
    }
    errors = {name: calibration_error(q_N3, y_N) for name, q_N3 in forecasts.items()}
    title = f"{prefix}select: reliability of the likeliest class"
    figure = plot_reliability(found, errors=errors, title=title)
    tracker.figure(f"{prefix}select/reliability", figure)


def _show_gates(
    tracker: Tracker,
    classifier: Classifier,
    x_PF: torch.Tensor,
    near_T: np.ndarray,
    ts_N: np.ndarray,
    prefix: str,
) -> None:
    """Nothing for a network without gates."""
    n_parts = min(N_PARTS, len(ts_N))
    gates_LKH = gate_activity(classifier.network, x_PF, near_T, n_parts=n_parts)
    if len(gates_LKH):
        last_K = -(-np.arange(1, n_parts + 1) * len(ts_N) // n_parts) - 1  # each part's last row
        title = f"{prefix}select: squeeze-and-excitation gates over time"
        figure = plot_gates(gates_LKH, ts_N[last_K], title=title)
        tracker.figure(f"{prefix}select/gates", figure)


def _show_predictions(
    tracker: Tracker, dataset: Dataset, rows_T: np.ndarray, p_T3: np.ndarray, prefix: str
) -> None:
    """N_SHOWN rows spread evenly over `select`. Times are text: a browser's numbers cannot hold
    nanoseconds.
    """
    at_N = np.flatnonzero(rows_T)
    at_N = at_N[np.unique(np.linspace(0, len(at_N) - 1, N_SHOWN).round().astype(int))]
    frame = pl.DataFrame(
        {
            "bar": dataset.bar_T[at_N],
            "ts": np.datetime_as_string(dataset.ts_T[at_N].astype("datetime64[ns]"), unit="ms"),
            "y": [CLASS_NAMES[y] for y in dataset.y_T[at_N]],
            **{f"p_{name}": p_T3[at_N, c] for c, name in enumerate(CLASS_NAMES)},
        }
    )
    tracker.table(f"{prefix}select/predictions", frame)


def _show_importance(
    tracker: Tracker, classifier: Classifier, dataset: Dataset, rows_T: np.ndarray, prefix: str
) -> None:
    at_N = np.flatnonzero(rows_T)[-IMPORTANCE_ROWS:]
    last_T = np.zeros_like(rows_T)
    last_T[at_N] = True
    # One seed for every run: two runs shuffle alike and can be compared.
    rises = permutation_importance(classifier, dataset, last_T, seed=0)
    frame = pl.DataFrame({"feature": list(rises), "log_loss_rise": list(rises.values())})
    tracker.table(f"{prefix}tune/importance", frame.sort("log_loss_rise", descending=True))
    is_all = len(at_N) == rows_T.sum()
    shown = f"{len(at_N):,} rows" if is_all else f"last {len(at_N):,} rows of {rows_T.sum():,}"
    title = f"{prefix}tune: what each feature is worth ({shown})"
    tracker.figure(f"{prefix}tune/importance_bars", plot_importance(rises, title=title))


@torch.no_grad()
def _network_input(
    classifier: Classifier, dataset: Dataset, rows_T: np.ndarray
) -> tuple[torch.Tensor, np.ndarray]:
    """(what the network sees, which of those bars the rows are): the bars from R - 1 before the
    first of the rows to the last, padded by another R - 1 for `dense_logits`.
    """
    reach = classifier.receptive_field - 1
    at_N = np.flatnonzero(rows_T)
    # Not all of the data: `select` is a small part of them, and only its own past matters to it.
    period = slice(max(at_N[0] - reach, 0), at_N[-1] + 1)
    x_PF = classifier.scale(torch.from_numpy(dataset.x_TF[period]).to(classifier.class_bias.device))
    # Padded after scaling, as in `predict`: the network sees the same zeros here as there.
    return pad(x_PF, (0, 0, reach, 0)), rows_T[period]


def _uncalibrated(
    classifier: Classifier, x_PF: torch.Tensor, near_T: np.ndarray, p_N3: np.ndarray
) -> np.ndarray:
    """Softmax of the logits as trained, among the classes on offer, where `p_N3` is above 0."""
    logits_NC = dense_logits(classifier.network, x_PF, near_T)[torch.from_numpy(near_T)].double()
    logits_NC = logits_NC.masked_fill(torch.from_numpy(p_N3 == 0).to(logits_NC.device), -torch.inf)
    return logits_NC.softmax(-1).cpu().numpy()
