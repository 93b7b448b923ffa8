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
from hft.report.scorecard import MARKOUTS, Scorecard
from hft.schema import CLASS_NAMES
from hft.trading.fees import headline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Metrics = Mapping[str, float | None]
# (heading, metric); headings are short, so that 80 columns hold every number. A majority is what
# forecasting the class frequencies scores in the column to its left.
OF_FIT = (
    ("rows", "rows"),
    ("log loss", "log_loss"),
    ("majority", "majority_log_loss"),
    ("macro F1", "macro_f1"),
    ("majority", "majority_macro_f1"),
    ("MCC", "mcc"),
    ("ECE", "calibration_error"),
)
OF_RUN = (
    metric("select", "log_loss"),
    metric("select", "majority_log_loss"),
    metric("select", "macro_f1"),
    metric("select", "mcc"),
    f"baseline/{metric('select', 'log_loss')}",
)


def print_whole(table: Table, *, console: Console | None = None) -> None:
    """Prints a table with all its digits: where columns that do not wrap need more room than the
    console has, lines are longer than its width. Rich would cut numbers short.
    """
    from rich.cells import cell_len
    from rich.console import Console

    def least(cell: object, *, whole: bool) -> int:
        text = str(cell)
        return cell_len(text) if whole else max(map(cell_len, text.split()), default=0)

    console = console or Console()
    needed = len(table.columns) + 1  # the box
    for column in table.columns:
        cells = [column.header, *column.cells]
        needed += max(least(cell, whole=column.no_wrap) for cell in cells)
        needed += table.padding[1] + table.padding[3]
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)


def print_scorecard(card: Scorecard, *, schedule: str, console: Console | None = None) -> None:
    """The headline schedules and, in bold, the strategy's own; `fees` are maker/taker, `fall` the
    maximum drawdown.
    """
    from rich.console import Console

    console = console or Console()
    # A terminal of 80 columns has just room for the verdict.
    table = _new_table(_period(card), gap=int(console.width >= 100))
    # bybit_perp_supreme has 18 characters: the column keeps its place from card to card.
    table.add_column("schedule", no_wrap=True, min_width=18)
    for name in ("fees", "a trade", "a day", "total", "hit", "Sharpe", "fall"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    # The ends of each ladder: a row for each of its tiers would push the verdict off the screen,
    # and scorecard.json has them all.
    shown = {schedule, *headline({name: s.taker_bps for name, s in card.schedules.items()})}
    for name in (n for n in card.schedules if n in shown):
        row = card.schedules[name]
        cells = [
            f"{row.maker_bps:g}/{row.taker_bps:g}",
            _shown(row.net_bps_trade, "+.2f"),
            f"{row.net_bps_day:+.1f}",
            f"{row.net_bps_total:+.0f}",
            _shown(row.hit_rate, ".0%"),
            _shown(row.sharpe, ".1f"),
            f"{row.max_drawdown_bps:.0f}",
        ]
        table.add_row(name, *cells, row.verdict, style="bold" if name == schedule else None)
    print_whole(table, console=console)
    for line in _lines(card):
        console.print(line, highlight=False, markup=False)


def print_fit(
    metrics: Metrics, *, name: str, strategy: str, console: Console | None = None
) -> None:
    """What a training came to: label shares beside a random walk's, calibrated class metrics beside
    the majority's.
    """
    from rich.console import Console

    console = console or Console()
    best_epoch = _shown(metrics[metric("train", "best_epoch")], ".0f")
    table = _new_table(f"{name}: calibrated, best epoch {best_epoch}")
    table.add_column("split", no_wrap=True)
    for heading, _ in OF_FIT:
        table.add_column(heading, justify="right", no_wrap=True)
    for split in ("tune", "select"):
        for row, prefix in ((split, ""), (f"{split}, baseline", "baseline/")):
            if prefix + metric(split, "log_loss") in metrics:
                # A baseline has no majority of its own; the model's stands in the row above.
                values = [metrics.get(prefix + metric(split, of)) for _, of in OF_FIT]
                rows, *others = values
                table.add_row(row, _shown(rows, ".0f"), *(_shown(v, ".4f") for v in others))
    print_whole(table, console=console)
    for line in _of_fit(metrics):
        console.print(line, highlight=False, markup=False)
    console.print(f"strategy: {strategy}", highlight=False, markup=False)


def _of_fit(metrics: Metrics) -> Iterator[str]:
    """The lines under the table of a fit."""
    # Barriers decide most of a class's share. Only what departs from the random walk's tells of the
    # market.
    shares = [
        f"{label} {_shown(metrics[metric('labels', label)], '.1%')} "
        f"({_shown(metrics[metric('labels', f'random_walk_{label}')], '.1%')})"
        for label in CLASS_NAMES
    ]
    yield f"labels of train, in brackets a random walk's: {', '.join(shares)}"
    excess, low, high = (
        metrics[metric("select", f"log_loss_excess{end}")] for end in ("", "_low", "_high")
    )
    interval = f" [{low:+.4f}, {high:+.4f}]" if low is not None and high is not None else ""
    # Skill is an interval wholly below 0 (docs/definitions.md 5.21). A macro-F1 above the
    # majority's is none: shuffled labels reach .32 (5.16).
    verdict = "skill" if high is not None and high < 0 else "no skill shown"
    against = "log loss of select against class frequencies"
    yield f"{against} {_shown(excess, '+.4f')}{interval}: {verdict}"
    epochs, loss = metrics[metric("train", "epochs")], metrics[metric("train", "loss")]
    yield f"loss of train in the last of {_shown(epochs, '.0f')} epochs: {_shown(loss, '.4g')}"


def print_over_seeds(metrics: Metrics, *, objective: str, console: Console | None = None) -> None:
    """Means over folds and seeds of what matters; with several seeds, their standard deviation and
    worst.
    """
    table = _new_table("over folds and seeds")
    for column in ("metric", "mean", "sd", "worst"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    for name in dict.fromkeys([*OF_RUN, objective]):
        if name in metrics:
            values = [metrics.get(key) for key in (name, f"{name}/sd", f"{name}/worst")]
            table.add_row(name, *(_shown(value, ".4f") for value in values))
    print_whole(table, console=console)


def print_spread(
    cards: Mapping[str, Scorecard], *, schedule: str, shown: str, console: Console | None = None
) -> None:
    """Every series of one scoring, and their mean, standard deviation and worst; `shown` names the
    series whose card is printed above.
    """
    table = _new_table(f"{len(cards)} series at {schedule}; the card above is that of {shown}")
    for column in ("series", "trades", "break-even bps", "net bps a day"):
        table.add_column(column, justify="left" if column == "series" else "right", no_wrap=True)
    nets = np.array([card.schedules[schedule].net_bps_day for card in cards.values()])
    for (name, card), net in zip(cards.items(), nets, strict=True):
        table.add_row(name, str(card.trades), _shown(card.break_even_bps, "+.2f"), f"{net:+.1f}")
    # A series without trades has no break-even, but its net of 0 counts above.
    margins = np.array([c.break_even_bps for c in cards.values() if c.break_even_bps is not None])
    # Both columns are better where they are higher: the worst is the least.
    for label, of in (("mean", np.mean), ("standard deviation", _deviation), ("worst", np.min)):
        margin = f"{of(margins):+.2f}" if len(margins) else "-"
        table.add_row(label, "", margin, f"{of(nets):+.1f}", style="bold")
    print_whole(table, console=console)


def _new_table(title: str, *, gap: int = 1) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    padding = (0, gap, 0, 0)
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=padding, pad_edge=False
    )


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _lines(card: Scorecard) -> Iterator[str]:
    """The lines under the table; a number without a unit is in bps."""
    turnover = f"turnover {card.turnover_day:.1f} positions a day"
    yield f"{card.trades} trades, {card.trades / card.days:.1f} a day, {turnover}"
    if card.trades:
        ends = ", ".join(f"{name} {n / card.trades:.0%}" for name, n in card.reasons.items())
        held = f"held {_shown(card.holding_s, '.3g')} s (median)"
        yield f"{_shown(card.long_share, '.0%')} long, {held}, ended by {ends}"
        marks = ", ".join(_shown(card.markouts[name], "+.2f") for name in MARKOUTS)
        gross = f"gross {_shown(card.gross_bps_trade, '+.2f')} per trade"
        yield f"{gross}; markouts after 0.1, 1, 10 s: {marks}"
    reasons = [row.sharpe_reason for row in card.schedules.values() if row.sharpe_reason]
    # Most schedules share one reason, which is about the period: said once.
    yield from (f"no Sharpe ratio: {reason}" for reason in dict.fromkeys(reasons))
    yield from (f"note: {note}" for note in card.notes)
    yield f"verdict: {card.verdict}"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _period(card: Scorecard) -> str:
    first, last = (dt.datetime.fromtimestamp(t // NS_PER_S, dt.UTC) for t in (card.start, card.end))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC ({card.days:.2f} days), net in bps"
