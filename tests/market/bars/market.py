"""Specs that cut the random market into a few hundred bars, and changes of its ticks for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import yaml

from hft.clock import NS_PER_DAY
from hft.market.bars import BarSpec
from hft.market.ticks import Ticks
from hft.spec import Room, Spec, parse
from tests.random_market import random_ticks

CONF = Path(__file__).parents[3] / "conf" / "bars"
KINDS = Room("hft.market.bars").names()


class _Choice(Spec):
    bars: Annotated[BarSpec, Room("hft.market.bars")]


def bar_spec(kind: str, **numbers: float) -> BarSpec:
    """The shipped YAML with other numbers."""
    return parse(
        _Choice, {"bars": yaml.safe_load((CONF / f"{kind}.yaml").read_text()) | numbers}
    ).bars


def small_spec(kind: str, ticks: Ticks) -> BarSpec:
    """About a hundred bars a day."""
    spec = bar_spec(kind)
    if spec.hours_back:
        return bar_spec(kind, size=900.0, history_hours=5)
    size = spec.available(ticks) * NS_PER_DAY / (ticks.end - ticks.start) / 100
    return bar_spec(kind, size=max(1, int(size)) if kind == "tick" else size)


def sided_ticks(*, n_days: int = 3, seed: int = 0, n_trades: int = 1200) -> Ticks:
    """The random market with a tenth of the sides unknown and one gap inside each day but the
    last.
    """
    ticks = random_ticks(seed, n_trades=n_trades, n_days=n_days)
    unknown = pl.Series(np.random.default_rng(seed).random(ticks.trades.height) < 0.1)
    trades = ticks.trades.with_columns(
        side=pl.when(unknown).then(pl.lit(0, pl.Int8)).otherwise("side")
    )
    middles = (np.arange(n_days - 1) * n_trades + n_trades // 2).tolist()
    return dataclasses.replace(ticks, trades=trades, gaps=trades["ts_recv"].to_numpy()[middles])


def with_other_future(ticks: Ticks, ts: int) -> Ticks:
    """Ticks in which everything differs that was not known when a bar closed at `ts`: later trades,
    and quotes from `ts` on.
    """
    price, qty = pl.col("price"), pl.col("qty")
    after = pl.col("ts_recv") > ts
    trades = ticks.trades.with_columns(
        price=pl.when(after).then(price * 1.3).otherwise(price),
        qty=pl.when(after).then(qty * 7).otherwise(qty),
        side=pl.when(after).then(-pl.col("side")).otherwise("side"),
    )
    unseen = pl.col("ts_recv") >= ts
    quotes = ticks.quotes.with_columns(
        pl.when(unseen).then(pl.col(c) * 1.7).otherwise(c).alias(c)
        for c in ("bid", "ask", "bid_qty", "ask_qty")
    )
    book = ticks.book.with_columns(
        pl.when(unseen).then(pl.col(c) * 1.7).otherwise(c).alias(c) for c in ticks.book.columns[3:]
    )
    return dataclasses.replace(ticks, trades=trades, quotes=quotes, book=book)
