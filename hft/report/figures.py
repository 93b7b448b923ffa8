"""What a run shows beside its numbers: arrays in, matplotlib figures out, drawn without a display.

Each function takes what hft/statistics/classes.py or hft/learning/model computed and returns a
Figure for a Tracker. To add one: a function here, and its place in hft/report/review.py.

Legend: C classes, L gated blocks, K parts of a period; H channels of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hft.schema import CLASS_NAMES
from hft.statistics.classes import Coverage, PrCurve, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("0.45", "C2", "C3")  # hold, buy, sell
MAX_POINTS = 1000  # of a curve: more take seconds to draw and look the same
MAX_BARS = 40  # of a bar chart: more cannot be read


def plot_confusion(counts_CC: np.ndarray, *, title: str) -> Figure:
    """Rows [true, predicted] as shares of the true class: the diagonal is recall."""
    figure, axes = _new(4.8, 4.4, title)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), share in np.ndenumerate(shares_CC):
        text = f"{share:.1%}\n{counts_CC[true, predicted]:,}"
        axes.text(
            predicted,
            true,
            text,
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
        )
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), [f"{n}\n{rows:,}" for n, rows in _rows_of(counts_CC)])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def plot_pr_curves(
    curves: Mapping[str, PrCurve], *, averages: Mapping[str, float], title: str
) -> Figure:
    """One curve per class, its average precision in the legend; a forecast without skill stays at
    the dotted share.
    """
    figure, axes = _new(6.2, 4.4, title)
    for color, (name, (recall_K, precision_K)) in zip(COLORS, curves.items(), strict=True):
        shown, share = _thinned(len(recall_K)), precision_K[-1]
        label = f"{name}: {averages[name]:.3f}, its share {share:.3f}"
        axes.plot(
            recall_K[shown], precision_K[shown], drawstyle="steps-pre", color=color, label=label
        )
        axes.axhline(share, color=color, linewidth=1, linestyle=":")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=9, title="average precision", title_fontsize=9)
    return figure


def plot_reliability(
    found: Mapping[str, Reliability], *, errors: Mapping[str, float], title: str
) -> Figure:
    """Of the likeliest class, per forecaster, its calibration error in the legend; below the
    diagonal is overconfident.

    The lower panel says where the rows are: what holds few of them is noise.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.8), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    looks = [{"color": "0.55", "marker": "s"}, {"color": "C0", "marker": "o"}]
    for look, (name, (forecast_K, share_K, rows_K)) in zip(looks, found.items(), strict=True):
        label = f"{name}: calibration error {errors[name]:.3f}"
        axes.plot(forecast_K, share_K, markersize=4, linewidth=1.2, label=label, **look)
        below.plot(forecast_K, rows_K / rows_K.sum(), markersize=4, linewidth=1.2, **look)
    axes.set(
        ylabel="share of rows where it came", xlim=(1 / len(CLASS_NAMES) - 0.01, 1), ylim=(0, 1.02)
    )
    below.set(xlabel="probability of the likeliest class", ylabel="share of rows", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _dress(axes, title)
    _dress(below, "")
    return figure


def plot_coverage(curve: Coverage, *, title: str) -> Figure:
    """Accuracy on the rows answered when only the most confident are, beside the majority class on
    the same rows.
    """
    figure, axes = _new(6.2, 4.2, title)
    axes.plot(
        curve.coverage_K, curve.accuracy_K, marker="o", markersize=3, clip_on=False, label="model"
    )
    axes.plot(
        curve.coverage_K,
        curve.majority_accuracy_K,
        color="0.45",
        linestyle="--",
        label="majority class",
    )
    axes.set(
        xlabel="share of rows answered, the most confident first", ylabel="accuracy", xlim=(0, 1)
    )
    axes.legend(frameon=False, fontsize=9)
    return figure


def plot_gates(gates_LKH: np.ndarray, times_K: np.ndarray, *, title: str) -> Figure:
    """Squeeze-and-excitation gates of each channel over the parts of a period, a row of panels per
    block, input first.

    On the left the mean of the period, on the right how far each part is from it: channels differ
    by far more than times do, so that on one scale nothing would seem to change.
    """
    from matplotlib.figure import Figure

    means_LH1 = gates_LKH.mean(axis=1)[:, :, None]
    changes_LHK = gates_LKH.transpose(0, 2, 1) - means_LH1
    largest = max(np.abs(changes_LHK).max(), 1e-6)
    figure = Figure(figsize=(9.5, 1.3 + 1.2 * len(gates_LKH)), layout="constrained")
    panels = figure.subplots(
        len(gates_LKH), 2, squeeze=False, sharex="col", sharey="row", width_ratios=(1, 16)
    )
    for block, (left, right) in enumerate(panels):
        look = {"aspect": "auto", "interpolation": "nearest"}
        of_mean = left.imshow(means_LH1[block], vmin=0, vmax=1, cmap="viridis", **look)
        of_change = right.imshow(
            changes_LHK[block], vmin=-largest, vmax=largest, cmap="RdBu_r", **look
        )
        left.set_ylabel(f"block {block}\nchannel", fontsize=8)
        left.tick_params(labelsize=8)
        right.tick_params(left=False, labelsize=8)
    panels[-1, 0].set_xticks([0], ["mean"])
    ticks = np.unique(np.linspace(0, len(times_K) - 1, 5).round().astype(int))
    times = np.datetime_as_string(times_K[ticks].astype("datetime64[ns]"), unit="m")
    panels[-1, 1].set_xticks(ticks, [t.replace("T", "\n") for t in times])
    panels[-1, 1].set_xlabel("UTC at a part's last bar; parts hold equally many rows", fontsize=8)
    figure.colorbar(of_change, ax=panels[:, 1], label="change")
    figure.colorbar(of_mean, ax=panels[:, 1], label="mean gate")
    figure.suptitle(title, fontsize=10)
    return figure


def plot_importance(rises: Mapping[str, float], *, title: str) -> Figure:
    """The largest on top; the log loss falls where shuffling a feature does no harm, so the left
    side is noise.
    """
    largest = sorted(rises, key=lambda name: abs(rises[name]))[-MAX_BARS:]
    names = sorted(largest, key=rises.__getitem__)
    figure, axes = _new(7, 1.1 + 0.22 * len(names), title)
    axes.barh(
        names, [rises[n] for n in names], color=["C0" if rises[n] > 0 else "0.7" for n in names]
    )
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.tick_params("y", labelsize=8, length=0)
    axes.margins(y=0.01)
    left_out = (
        f"; {len(rises) - len(names)} smaller ones left out" if len(rises) > len(names) else ""
    )
    axes.set_xlabel(f"rise of log loss when the feature is shuffled, nats{left_out}")
    return figure


def _rows_of(counts_CC: np.ndarray) -> list[tuple[str, int]]:
    return list(zip(CLASS_NAMES, counts_CC.sum(axis=1), strict=True))


def _thinned(n: int) -> np.ndarray:
    """At most MAX_POINTS of n positions, both ends among them; denser at the beginning, where
    precision jumps.
    """
    if n <= MAX_POINTS:
        return np.arange(n)
    return np.unique(np.round((n - 1) * np.linspace(0, 1, MAX_POINTS) ** 2).astype(int))


def _new(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _dress(axes, title)
    return figure, axes


def _dress(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
