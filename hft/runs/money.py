"""What a forecast would earn on `select`, under every fee schedule and by day, after its strategy
learnt on `tune`.

In: frames, a split, calibrated probabilities. Out: a ledger and its metrics, from the simulator
that hft/runs/backtest.py uses too; and DAILY, what was closed on each UTC day. To add a metric of
money: a line in `_metrics`, and one in hft/metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hft.clock import NS_PER_DAY, day_of
from hft.config.configs import TrainConfig
from hft.dataset.splits import Block, Split, inside
from hft.metrics import drawdown_metric, metric, money_metric
from hft.report.scorecard import net_bps_day
from hft.runs.frames import Frames
from hft.schema import NET, daily_columns
from hft.statistics.returns import max_drawdown
from hft.trading.execution import ExecutionSpec, fit_strategy, simulate


@dataclass(frozen=True)
class Money:
    """What the strategy learnt, the LEDGER of `select` that followed, and its metrics."""

    fitted: dict[str, Any]
    ledger: pl.DataFrame
    metrics: dict[str, float]


def earn(config: TrainConfig, frames: Frames, split: Split, p_T3: np.ndarray) -> Money:
    fitted = fit_strategy(
        p_T3,
        split.rows("tune", frames.bars),
        frames.market.ticks,
        frames.bars,
        frames.exits,
        strategy=config.strategy,
        execution=config.execution,
        # Theta depends on the fee, so that one schedule is chosen for it; all others score the same
        # fills.
        schedule=config.fees[config.strategy.schedule],
        # No position of the search is held into `select`, whose rows judge the threshold.
        until=split.hull("tune")[1],
    )
    blocks = split.periods["select"]
    # Block by block: no position is held over rows of another role that lie between two blocks.
    ledger = pl.concat(
        trade(config, frames, split.fold, b, p_T3, fitted, execution=config.execution)
        for b in blocks
    )
    return Money(fitted, ledger, _metrics(config, split, ledger))


def trade(
    config: TrainConfig,
    frames: Frames,
    fold: int,
    block: Block,
    p_T3: np.ndarray,
    fitted: dict[str, Any],
    *,
    execution: ExecutionSpec,
) -> pl.DataFrame:
    """LEDGER of acting on the forecasts of one block of time; nothing from its end on is read."""
    return simulate(
        # nan is "no decision here". The bars themselves stay, because positions end by later bars.
        np.where(inside(frames.bars, [block])[:, None], p_T3, np.nan),
        frames.market.ticks,
        frames.bars,
        frames.exits,
        strategy=config.strategy,
        fitted=fitted,
        execution=execution,
        until=block[1],
        fold=fold,
    )


def _metrics(config: TrainConfig, split: Split, ledger: pl.DataFrame) -> dict[str, float]:
    """Of `select`, per calendar day where it says day."""
    start, end = split.hull("select")
    # Both legs at their own prices (docs/definitions.md 2, turnover).
    traded = float((ledger["qty"] * (ledger["price_entry"] + ledger["price_exit"])).sum())
    found = {
        metric("select", "trades"): len(ledger),
        metric("select", "turnover_day"): traded / ((end - start) / NS_PER_DAY),
    }
    for name, schedule in config.fees.items():
        found[money_metric("select", name)] = net_bps_day(
            ledger, schedule, start, end, min_trades=config.min_trades
        )
        found[drawdown_metric("select", name)] = max_drawdown(schedule.net_bps(ledger))
    return found


def daily_returns(
    config: TrainConfig, split: Split, ledger: pl.DataFrame, *, seed: int
) -> pl.DataFrame:
    """DAILY over all UTC days that `select` touches; it may hold the first and the last in part
    only. A day without a closed position earned 0. Unlike in the objective, a gain of fewer than
    `min_trades` trades counts.
    """
    start, end = split.hull("select")
    # `end` is exclusive: a period that ends at midnight has no row of the day after.
    first, last = start // NS_PER_DAY, (end - 1) // NS_PER_DAY
    # Booked where the position was closed, as on the grid of the Sharpe ratio.
    day_N = ledger["ts_exit"].to_numpy() // NS_PER_DAY - first

    def by_day(values_N: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(day_N, weights=values_N, minlength=last - first + 1)

    columns = {
        "day": [day_of(day * NS_PER_DAY) for day in range(first, last + 1)],
        "gross_bps": by_day(ledger["gross_bps"].to_numpy()),
        "trades": by_day(),
        **{
            f"{NET}{name}": by_day(schedule.net_bps(ledger))
            for name, schedule in config.fees.items()
        },
    }
    contract = daily_columns(config.fees)
    frame = pl.DataFrame(columns).with_columns(fold=pl.lit(split.fold), seed=pl.lit(seed))
    return frame.select(*contract).cast(pl.Schema(contract))
