"""What a run shows beside its numbers: arrays in, matplotlib figures out, drawn without a display.

Each function takes what was computed elsewhere and returns a Figure for a Tracker. To add one: a
function here, and its place in hft/report/review.py.

Legend: C classes, L gated blocks, K parts of a period; H channels of a block.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hft.schema import CLASS_NAMES
from hft.statistics.classes import Coverage, PrCurve, Reliability
from hft.trading.fees import FeeSchedule, headline

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("0.45", "C2", "C3")  # hold, buy, sell
MAX_POINTS = 1000  # of a curve: more take seconds to draw and look the same
MAX_BARS = 40  # of a bar chart: more cannot be read
N_CURVES = 5  # of equity after fees


def plot_confusion(counts_CC: np.ndarray, *, title: str) -> Figure:
    """Rows [true, predicted] as shares of the true class: the diagonal is recall."""
    figure, axes = _new(4.8, 4.4, title)
    # A class without rows is a row of zeros, not of nan.
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), share in np.ndenumerate(shares_CC):
        text = f"{share:.1%}\n{counts_CC[true, predicted]:,}"
        color = "white" if share > 0.5 else "black"
        axes.text(predicted, true, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), [f"{n}\n{rows:,}" for n, rows in _rows_of(counts_CC)])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def plot_pr_curves(
    curves: Mapping[str, PrCurve], *, averages: Mapping[str, float], title: str
) -> Figure:
    """One curve per class, its average precision in the legend. A forecast without skill stays at
    the dotted line, the class's share of rows.
    """
    figure, axes = _new(6.2, 4.4, title)
    for color, (name, (recall_K, precision_K)) in zip(COLORS, curves.items(), strict=True):
        # At the last threshold every row is answered, so that precision there is the class's share.
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
    """One curve per forecaster, of its likeliest class, with the calibration error in the legend;
    points below the diagonal are overconfident.

    The lower panel shows where the rows are: a bin that holds few of them is noise.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.8), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    looks: list[dict[str, Any]] = [{"color": "0.55", "marker": "s"}, {"color": "C0", "marker": "o"}]
    for look, (name, (forecast_K, share_K, rows_K)) in zip(looks, found.items(), strict=True):
        label = f"{name}: calibration error {errors[name]:.3f}"
        axes.plot(forecast_K, share_K, markersize=4, linewidth=1.2, label=label, **look)
        below.plot(forecast_K, rows_K / rows_K.sum(), markersize=4, linewidth=1.2, **look)
    # The likeliest of three classes has a probability of a third at least.
    axes.set(
        ylabel="share of rows where it came", xlim=(1 / len(CLASS_NAMES) - 0.01, 1), ylim=(0, 1.02)
    )
    below.set(xlabel="probability of the likeliest class", ylabel="share of rows", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set_title(title, fontsize=10, loc="left")
    for panel in (axes, below):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def plot_coverage(curve: Coverage, *, title: str) -> Figure:
    """Accuracy when only the most confident rows are answered, beside that of the majority class on
    the same rows.
    """
    figure, axes = _new(6.2, 4.2, title)
    x_K = curve.coverage_K
    axes.plot(x_K, curve.accuracy_K, marker="o", markersize=3, clip_on=False, label="model")
    axes.plot(x_K, curve.majority_accuracy_K, color="0.45", linestyle="--", label="majority class")
    axes.set(xlabel="share of rows answered, the most confident first", ylabel="accuracy")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, fontsize=9)
    return figure


def plot_gates(gates_LKH: np.ndarray, times_K: np.ndarray, *, title: str) -> Figure:
    """Squeeze-and-excitation gates of each channel over the parts of a period; a row of panels per
    block, the block next to the input first.

    On the left is the mean of the period, on the right how far each part is from it. Channels
    differ far more than times do: on one scale nothing would seem to change.
    """
    from matplotlib.figure import Figure

    means_LH1 = gates_LKH.mean(axis=1)[:, :, None]
    changes_LHK = gates_LKH.transpose(0, 2, 1) - means_LH1
    # Gates that never move would give a colour scale without width.
    largest = max(np.abs(changes_LHK).max(), 1e-6)
    figure = Figure(figsize=(9.5, 1.3 + 1.2 * len(gates_LKH)), layout="constrained")
    panels = figure.subplots(
        len(gates_LKH), 2, squeeze=False, sharex="col", sharey="row", width_ratios=(1, 16)
    )
    for block, (left, right) in enumerate(panels):
        look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
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
    """The largest rise of log loss on top. A fall means that shuffling the feature did no harm: the
    left side shows how large the noise is.
    """
    # By size, falls among them: they show how large the noise is.
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


def plot_equity(
    ledger: pl.DataFrame, fees: Mapping[str, FeeSchedule], *, start: int, end: int, title: str
) -> Figure:
    """Left: the cumulative return over [start, end) ns, booked at the exits, before fees and under
    a few schedules, cheap to dear. Right: the ladder, what one trade earns under the cheapest and
    the dearest tier of each.
    """
    import matplotlib.dates as dates

    figure, (axes, ladder) = new_panels(
        2, columns=2, width=11, height=4.6, dpi=100, widths=(3.0, 1.4)
    )
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=10, x=0.01, ha="left")
    axes.axhline(0, color="0.6", linewidth=0.8)
    # From start to end whatever was traded: stretches without trades are part of the result.
    times = np.array([start, *ledger["ts_exit"], end]).astype("datetime64[ns]")
    for rank, (label, returns_N) in enumerate(_curves(ledger, fees)):
        equity = np.concatenate([[0.0], np.cumsum(returns_N)])
        color, width = (f"C{rank - 1}", 1.4) if rank else ("black", 2.0)
        steps = [*equity, equity[-1]]
        axes.step(times, steps, where="post", label=label, color=color, linewidth=width)
    axes.legend(loc="lower left", frameon=False, fontsize=8)
    # Matplotlib's dates are untyped.
    write = dates.ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(write)
    axes.set(xlim=times[[0, -1]], xlabel="UTC", ylabel="cumulative return, bps of the position")
    axes.grid(alpha=0.25)
    _draw_ladder(ladder, ledger, fees)
    return figure


def _draw_ladder(axes: Axes, ledger: pl.DataFrame, fees: Mapping[str, FeeSchedule]) -> None:
    """A bar per schedule, the cheapest on top; green pays, red does not."""
    shown = headline({name: schedule.taker_bps for name, schedule in fees.items()})
    # barh draws upwards, so that the dearest comes first.
    dear_first = sorted(shown, key=lambda name: -fees[name].one_way_bps(ledger))
    nets = [float(fees[name].net_bps(ledger).mean()) if len(ledger) else 0.0 for name in dear_first]
    labels = [f"{name}, {fees[name].one_way_bps(ledger):g}" for name in dear_first]
    axes.barh(labels, nets, color=["C2" if net > 0 else "C3" for net in nets])
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.tick_params("y", labelsize=8, length=0)
    axes.margins(y=0.01)
    axes.set_xlabel("net per trade, bps, by one-way fee, bps")


def _rows_of(counts_CC: np.ndarray) -> list[tuple[str, int]]:
    return list(zip(CLASS_NAMES, counts_CC.sum(axis=1), strict=True))


def _thinned(n: int) -> np.ndarray:
    """At most MAX_POINTS of n positions, both ends among them; they are denser at the beginning,
    where precision jumps.
    """
    if n <= MAX_POINTS:
        return np.arange(n)
    return np.unique(np.round((n - 1) * np.linspace(0, 1, MAX_POINTS) ** 2).astype(int))


def _curves(ledger: pl.DataFrame, fees: Mapping[str, FeeSchedule]) -> list[tuple[str, np.ndarray]]:
    """(legend, returns): before fees first, then headline schedules of different cost, no more than
    N_CURVES.
    """
    shown = headline({name: schedule.taker_bps for name, schedule in fees.items()})
    # By cost, because schedules of one cost would draw the same line twice. Of those the first name
    # stays.
    costs = {fees[name].one_way_bps(ledger): name for name in reversed(shown)}
    # A cost of 0 is the curve before fees.
    chosen = sorted(cost for cost in costs if cost)
    if len(chosen) > N_CURVES:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, N_CURVES).round().astype(int)]
    nets = [(f"{costs[cost]}, {cost:g} bps", fees[costs[cost]].net_bps(ledger)) for cost in chosen]
    curves = [("before fees", ledger["gross_bps"].to_numpy()), *nets]
    return [(f"{label}: {returns.sum():+,.0f}", returns) for label, returns in curves]


def new_panels(
    n: int,
    *,
    columns: int,
    width: float,
    height: float,
    dpi: float | None = None,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure and its first `n` panels, row by row; `width` is the figure's, `height` a row's, in
    inches, and `widths` are the columns', one to another. Drawn without a display: pyplot would
    keep state for the whole process.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(n / columns)
    figure = Figure(figsize=(width, height * rows), dpi=dpi, layout="constrained")
    panels: list[Axes] = list(
        figure.subplots(rows, columns, squeeze=False, width_ratios=widths).flat
    )
    for spare in panels[n:]:
        spare.set_visible(False)
    for axes in panels[:n]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[:n]


def _new(
    width: float, height: float, title: str, *, dpi: float | None = None
) -> tuple[Figure, Axes]:
    figure, (axes,) = new_panels(1, columns=1, width=width, height=height, dpi=dpi)
    axes.set_title(title, fontsize=10, loc="left")
    return figure, axes
