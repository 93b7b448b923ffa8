"""What the entry points print: metrics and scorecards in, rich tables out, a reference beside each
fact.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hft.clock import NS_PER_S
from hft.metrics import metric
from hft.report.scorecard import MARKOUTS, Scorecard, headline
from hft.schema import CLASS_NAMES

if TYPE_CHECKING:
    from rich.console import Console


def print_scorecard(card: Scorecard, *, schedule: str, console: Console | None = None) -> None:
    """The headline schedules and, in bold, the strategy's own; `fees` are maker/taker, `fall` the
    maximum drawdown.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    gap = (
        0,
        int(console.width >= 100),
        0,
        0,
    )  # an 80-column terminal has just room for the verdict
    table = Table(
        title=_period(card), title_justify="left", box=SIMPLE_HEAD, padding=gap, pad_edge=False
    )
    table.add_column("schedule", no_wrap=True, min_width=18)
    for name in ("fees", "a trade", "a day", "total", "hit", "Sharpe", "fall"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    shown = {schedule, *headline(card.schedules)}
    for name in (n for n in card.schedules if n in shown):
        row = card.schedules[name]
        cells = [
            f"{row.maker_bps:g}/{row.taker_bps:g}",
            _shown(row.net_bps_trade, "+.2f"),
            f"{row.net_bps_day:+.1f}",
        ]
        cells += [
            f"{row.net_bps_total:+.0f}",
            _shown(row.hit_rate, ".0%"),
            _shown(row.sharpe, ".1f"),
        ]
        look = "bold" if name == schedule else None
        table.add_row(name, *cells, f"{row.max_drawdown_bps:.0f}", row.verdict, style=look)
    console.print(table)
    for line in _lines(card):
        console.print(line, highlight=False, markup=False)


def print_fit(
    metrics: Mapping[str, float], *, name: str, strategy: str, console: Console | None = None
) -> None:
    """What a training came to: label shares beside a random walk's, calibrated class metrics beside
    the majority's.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    title = f"{name}: calibrated, best epoch {metrics['train/best_epoch']:.0f}"
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    columns = (
        "rows",
        "log_loss",
        "majority_log_loss",
        "macro_f1",
        "majority_macro_f1",
        "mcc",
        "calibration_error",
    )
    # Short, so that every number is whole on 80 columns; a majority is the class frequencies' value
    # to its left's.
    for header in ("split", "rows", "log loss", "majority", "macro F1", "majority", "MCC", "ECE"):
        table.add_column(header, justify="left" if header == "split" else "right", no_wrap=True)
    for split in ("tune", "select"):
        for row, prefix in ((split, ""), (f"{split}, baseline", "baseline/")):
            if prefix + metric(split, "log_loss") in metrics:
                values = [metrics.get(prefix + metric(split, column)) for column in columns]
                table.add_row(
                    row, f"{values[0]:.0f}", *(_shown(value, ".4f") for value in values[1:])
                )
    console.print(table)
    shares = [
        f"{c} {metrics[f'labels/{c}']:.1%} ({metrics[f'labels/random_walk_{c}']:.1%})"
        for c in CLASS_NAMES
    ]
    console.print(
        f"labels of train, in brackets a random walk's: {', '.join(shares)}", highlight=False
    )
    low, high = (
        metrics[metric("select", "log_loss_excess_low")],
        metrics[metric("select", "log_loss_excess_high")],
    )
    excess = metrics[metric("select", "log_loss_excess")]
    interval = f" [{low:+.4f}, {high:+.4f}]" if low is not None else ""
    verdict = "skill" if high is not None and high < 0 else "no skill shown"
    console.print(
        f"log loss of select against class frequencies {excess:+.4f}{interval}: {verdict}",
        highlight=False,
    )
    console.print(
        f"loss of train in the last of {metrics['train/epochs']:.0f} epochs: {metrics['train/loss']:.4g}"
    )
    console.print(f"strategy: {strategy}", highlight=False)


def print_over_seeds(
    metrics: Mapping[str, float | None], *, objective: str, console: Console | None = None
) -> None:
    """Means over folds and seeds of what matters; with several seeds, their standard deviation and
    worst.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="over folds and seeds", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in ("metric", "mean", "sd", "worst"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    names = [
        metric("select", name) for name in ("log_loss", "majority_log_loss", "macro_f1", "mcc")
    ]
    for name in dict.fromkeys([*names, "baseline/select/log_loss", objective]):
        if name in metrics:
            values = [metrics.get(key) for key in (name, f"{name}/sd", f"{name}/worst")]
            table.add_row(name, *(_shown(value, ".4f") for value in values))
    (console or Console()).print(table)


def print_spread(
    cards: Mapping[str, Scorecard], *, schedule: str, shown: str, console: Console | None = None
) -> None:
    """Every series of one scoring, and their mean, standard deviation and worst; `shown` has its
    card above.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{len(cards)} series at {schedule}; the card above is that of {shown}",
        title_justify="left",
    )
    for column in ("series", "trades", "break-even bps", "net bps a day"):
        table.add_column(column, justify="left" if column == "series" else "right")
    for name, card in cards.items():
        net = f"{card.schedules[schedule].net_bps_day:+.1f}"
        table.add_row(name, str(card.trades), _shown(card.break_even_bps, "+.2f"), net)
    nets = np.array([card.schedules[schedule].net_bps_day for card in cards.values()])
    margins = np.array(
        [card.break_even_bps for card in cards.values() if card.break_even_bps is not None]
    )
    for label, of in (("mean", np.mean), ("standard deviation", _deviation), ("worst", np.min)):
        margin = f"{of(margins):+.2f}" if len(margins) else "-"
        table.add_row(label, "", margin, f"{of(nets):+.1f}", style="bold")
    (console or Console()).print(table)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _lines(card: Scorecard) -> Iterator[str]:
    """What stands under the table; every unit is bps unless said."""
    yield f"{card.trades} trades, {card.trades / card.days:.1f} a day, turnover {card.turnover_day:.1f} positions a day"
    if card.trades:
        ends = ", ".join(f"{name} {n / card.trades:.0%}" for name, n in card.reasons.items())
        yield f"{card.long_share:.0%} long, held {card.holding_s:.3g} s (median), ended by {ends}"
        marks = ", ".join(_shown(card.markouts[name], "+.2f") for name in MARKOUTS)
        yield f"gross {card.gross_bps_trade:+.2f} per trade; markouts after 0.1, 1, 10 s: {marks}"
    for reason in dict.fromkeys(
        row.sharpe_reason for row in card.schedules.values() if row.sharpe_reason
    ):
        yield f"no Sharpe ratio: {reason}"
    yield from (f"note: {note}" for note in card.notes)
    yield f"verdict: {card.verdict}"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _period(card: Scorecard) -> str:
    first, last = (dt.datetime.fromtimestamp(t // NS_PER_S, dt.UTC) for t in (card.start, card.end))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC ({card.days:.2f} days), net in bps"
