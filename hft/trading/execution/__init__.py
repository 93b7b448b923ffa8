"""Intended sides and the market in, fills out: one LEDGER row per position, before any fee.

A decision at a bar's close meets the market `latency_ms` later, and so does every exit. Barriers
are those of the labels, put around the entry fill. To add one: one module here with an
ExecutionSpec subclass, `conf/execution/<kind>.yaml`, one test. The conformance suite covers it at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field

from hft.schema import LEDGER, check
from hft.spec import Kind
from hft.trading.fees import FeeSchedule
from hft.trading.strategy import StrategySpec, make_sides

if TYPE_CHECKING:
    from hft.dataset.barriers import Exits
    from hft.market.ticks import Ticks

# Kernels hold no strings: they return indexes into this.
REASONS = ("take_profit", "stop_loss", "time", "end")


class ExecutionSpec(Kind):
    latency_ms: float = Field(
        ge=0, le=60_000, description="from a decision or a touched barrier to the market, ms"
    )

    def simulate(
        self, sides_T: np.ndarray, ticks: Ticks, bars: pl.DataFrame, exits: Exits, *, until: int
    ) -> pl.DataFrame:
        """LEDGER (`fold` 0) of acting on `sides_T`; no market data at or after `until` (ns) is
        read.

        A position still open then is closed at the last market state before it, reason "end".
        """
        raise NotImplementedError

    def assumptions(self, ticks: Ticks) -> tuple[str, ...]:
        """What these ticks force the fills to assume, one sentence each, printed beside every
        figure.
        """
        raise NotImplementedError


def simulate(
    p_T3: np.ndarray,
    ticks: Ticks,
    bars: pl.DataFrame,
    exits: Exits,
    *,
    strategy: StrategySpec,
    fitted: dict[str, Any],
    execution: ExecutionSpec,
    until: int,
    fold: int,
) -> pl.DataFrame:
    """LEDGER of a fitted strategy on calibrated probabilities: a row of `p_T3` per bar, NaN where
    none may be used.
    """
    sides_T = make_sides(strategy, p_T3, fitted)
    ledger = execution.simulate(sides_T, ticks, bars, exits, until=until)
    ledger = ledger.with_columns(pl.lit(fold, pl.Int64).alias("fold"))
    return check(ledger, LEDGER, where=f"execution={execution.kind}")


def fit_strategy(
    p_T3: np.ndarray,
    rows_T: np.ndarray,
    ticks: Ticks,
    bars: pl.DataFrame,
    exits: Exits,
    *,
    strategy: StrategySpec,
    execution: ExecutionSpec,
    schedule: FeeSchedule,
    until: int,
) -> dict[str, Any]:
    """What the strategy learns on the bars of `rows_T` (tune) through `execution`, paying
    `schedule`; `until` ends tune.
    """

    def net_of(sides_T: np.ndarray) -> np.ndarray:
        # Trades are judged after latency, spread and fees: a fill at the close that decided it
        # flatters (docs/definitions.md 1).
        return schedule.net_bps(execution.simulate(sides_T, ticks, bars, exits, until=until))

    # nan opens no trade, so that rows of tune alone choose a threshold.
    return strategy.fit(np.where(rows_T[:, None], p_T3, np.nan), net_of=net_of)
