"""The metrics of a run that a study keeps with each trial for its tables and reports, beside the
objectives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hft.metrics import metric, money_metric
from hft.trading.fees import reported

if TYPE_CHECKING:
    from hft.config.configs import TrainConfig

SCORES = ("log_loss", "log_loss_excess", "mcc", "trades")
HEADINGS = {"log_loss_excess": "excess"}  # nats above the majority's shares: below 0 is skill


def shown_metrics(config: TrainConfig) -> list[str]:
    """Scores on select, then the net return per day of the schedule that the strategy pays, then of
    the schedules that reports show.
    """
    schedules = reported(config.fees, own=config.strategy.schedule)
    return [
        *(metric("select", name) for name in SCORES),
        *(money_metric("select", schedule) for schedule in schedules),
    ]


def heading(name: str) -> str:
    """`select/log_loss_excess` as the heading of a column: `excess`; `net@maker_free` of a net
    return.
    """
    last, _, schedule = name.rpartition("/")[2].partition("@")
    return f"net@{schedule}" if schedule else HEADINGS.get(last, last)
