"""What a tracker is given of a run and of its backtests: few numbers, by which runs are told apart
and sorted, and the whole ladder of fees as one table.

In: metrics by their logged names, a Scorecard. The rest of a run's numbers stands in its
metrics.json. To show another: its name in hft/metrics.SHOWN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from hft.metrics import (
    BACKTEST,
    SHOWN,
    SPREADS,
    Metric,
    drawdown_metric,
    find,
    metric,
    money_metric,
    results_of,
    scheduled,
)
from hft.tracking.tracker import Tracker
from hft.trading.fees import FeeSchedule, reported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hft.report.scorecard import Scorecard

Numbers = Mapping[str, float | None]


def show_metrics(
    tracker: Tracker,
    metrics: Numbers,
    *,
    objective: str,
    fees: Mapping[str, FeeSchedule],
    schedule: str,
) -> None:
    """A run's summary, and `select/fees`: what `select` earns under every schedule. `schedule` is
    the one that the strategy pays.
    """
    tracker.summary(summary_of(metrics, objective=objective, fees=fees, schedule=schedule))
    tracker.table("select/fees", fee_table(metrics, fees))


def summary_of(
    metrics: Numbers, *, objective: str, fees: Mapping[str, FeeSchedule], schedule: str
) -> dict[str, float]:
    """Those of SHOWN that the data could carry, and the objective. Money per day stands under the
    schedules that reports show, other money under the strategy's own, a spread over seeds only
    beside what runs are compared by.
    """
    # Spreads beside few names only: two folds and two seeds come to 914 numbers, and a table of
    # runs with all of them can no longer be read.
    compared = {
        objective,
        metric("select", "log_loss"),
        metric("select", "mcc"),
        money_metric("select", schedule),
    }
    paid = reported(fees, own=schedule)
    found = {}
    for logged, value in metrics.items():
        of, _, spread = logged.rpartition("/")
        if value is None or (spread in SPREADS and of not in compared):
            continue
        if logged == objective or _is_shown(logged, find(logged), paid):
            found[logged] = value
    return found


def _is_shown(logged: str, of: Metric | None, paid: list[str]) -> bool:
    if of is None or of.name not in SHOWN:
        return False
    if not of.by_schedule:
        return True
    # `reported` has the strategy's own schedule first.
    own, schedule = paid[0], logged.partition("@")[2].partition("/")[0]
    return schedule in (paid if of.name == "net_bps_day" else [own])


def fee_table(metrics: Numbers, fees: Mapping[str, FeeSchedule]) -> pl.DataFrame:
    """A row per schedule: its fees, the net return of `select` per day and its largest fall, bps;
    with several seeds the spread of both.
    """
    columns = {"net_bps_day": money_metric, "max_drawdown_bps": drawdown_metric}
    ends = ["", *(f"/{spread}" for spread in SPREADS)]
    rows = [
        {"schedule": name, "maker_bps": schedule.maker_bps, "taker_bps": schedule.taker_bps}
        | {
            f"{column}{end}": metrics[logged]
            for column, spelled in columns.items()
            for end in ends
            if (logged := f"{spelled('select', name)}{end}") in metrics
        }
        for name, schedule in fees.items()
    ]
    # polars would take types from the first 100 rows; a ladder of one's own may be longer.
    return pl.DataFrame(rows, infer_schema_length=None)


def show_card(
    tracker: Tracker,
    card: Scorecard,
    *,
    name: str,
    fees: Mapping[str, FeeSchedule],
    schedule: str,
    equity: Figure,
) -> None:
    """The scorecard of the backtest `name` beside the training that it scores: numbers that sort,
    `<name>/scorecard` with all schedules, `<name>/equity`.
    """
    tracker.summary(dict(_of_card(card, name, reported(fees, own=schedule))))
    rows = [{"schedule": paid} | row.plain() for paid, row in card.schedules.items()]
    tracker.table(metric(name, "scorecard"), pl.DataFrame(rows, infer_schema_length=None))
    tracker.figure(metric(name, "equity"), equity)


def _of_card(card: Scorecard, name: str, paid: list[str]) -> Iterator[tuple[str, Any]]:
    yield metric(name, "verdict"), card.verdict
    plain = card.plain()
    for m in results_of(BACKTEST):
        if m.name not in SHOWN:
            continue
        if not m.by_schedule:
            # A null is no number to sort by.
            if plain[m.name] is not None:
                yield metric(name, m.name), plain[m.name]
            continue
        # The whole ladder stands in the scorecard's table.
        schedules: Iterable[str] = paid if m.name in ("net_bps_day", "sharpe") else paid[:1]
        for schedule in schedules:
            if (value := plain["schedules"][schedule][m.name]) is not None:
                yield scheduled(name, m.name, schedule), value
