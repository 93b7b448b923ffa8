"""Events/s of the backtest: the market's trades and quotes over the time that `simulate` takes.

The ledger is part of that time.

A side is wanted at every bar, so that a position is open nearly all the time: the walk has no idle
stretches to skip.
"""

from __future__ import annotations

import numpy as np

from benchmarks import Result, race
from benchmarks.labels import LATENCY_MS, shipped_labels
from benchmarks.market import random_market, shipped
from hft.market.bars import build_bars
from hft.market.bars.tick import TickBars
from hft.trading.execution import simulate
from hft.trading.execution.taker import Taker
from hft.trading.strategy.threshold import Threshold

FULL = {"n_trades": 2_000_000, "n_quotes": 6_000_000, "bar_size": 50, "repeats": 9}
QUICK = {"n_trades": 200_000, "n_quotes": 600_000, "bar_size": 50, "repeats": 3}
SEED = 0


def measure(*, n_trades: int, n_quotes: int, bar_size: int, repeats: int) -> Result:
    ticks = random_market(n_trades, n_quotes=n_quotes, seed=SEED)
    bars = build_bars(ticks, TickBars(**shipped("bars", "tick", size=bar_size)))
    execution = Taker(**shipped("execution", "taker", latency_ms=LATENCY_MS))
    strategy = Threshold(**shipped("strategy", "threshold", min_trades=1))
    exits = shipped_labels().exits(bars)
    p_T3 = np.random.default_rng(SEED).dirichlet([1.0, 1.0, 1.0], bars.height)

    def run():
        return simulate(
            p_T3,
            ticks,
            bars,
            exits,
            strategy=strategy,
            fitted={"theta": 0.0},
            execution=execution,
            until=ticks.end,
            fold=0,
        )

    timed = race({"hft": run}, repeats=repeats)["hft"]
    ledger = timed.output
    held_ns = int((ledger["ts_exit"] - ledger["ts_entry"]).sum())
    return Result(
        name="backtest",
        unit="events/s",
        rates={"hft": (n_trades + n_quotes) / timed.seconds},
        data=f"{n_trades:,} trades, {n_quotes:,} quotes, seed {SEED}, {bars.height:,} tick bars of "
        f"{bar_size}, a random side at every bar, {LATENCY_MS} ms latency",
        expected={"": 20e6},
        details={
            "positions": ledger.height,
            "positions_per_s": round(ledger.height / timed.seconds),
            "share_of_time_in_market": round(held_ns / (ticks.end - ticks.start), 3),
        },
    )
