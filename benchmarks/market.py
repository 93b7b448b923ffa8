"""A seeded random market in memory for the benchmarks, which need sizes and times, not patterns."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl

from hft.clock import NS_PER_DAY, NS_PER_MS
from hft.market.ticks import Ticks
from hft.schema import QUOTES, TRADES, book_columns, empty
from hft.system.conf import CONF, read_yaml

MS_PER_DAY = NS_PER_DAY // NS_PER_MS
TICK = 0.1


def random_market(n_trades: int, *, n_quotes: int, seed: int) -> Ticks:
    """One complete UTC day on a millisecond grid; a move of the mid is one tick."""
    rng = np.random.default_rng(seed)
    start = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()) * 1_000_000_000
    # The mid of every millisecond, in half ticks: both streams read it, so trades lie at the quotes
    # around them.
    mid = 1_200_000 + np.cumsum(
        rng.choice(np.array([-2, 0, 2]), MS_PER_DAY // 10, p=[0.25, 0.5, 0.25])
    )
    ms_trade, ms_quote = (np.sort(rng.integers(0, MS_PER_DAY, n)) for n in (n_trades, n_quotes))
    side = rng.choice(np.array([-1, 1], np.int8), n_trades)
    trades = {
        "ts_recv": start + ms_trade * NS_PER_MS,
        "ts_exch": start + ms_trade * NS_PER_MS,
        "id": np.arange(n_trades),
        "price": _price(mid[ms_trade // 10] + side),
        "qty": _qty(rng, n_trades),
        "side": side,
    }
    quotes = {
        "ts_recv": start + ms_quote * NS_PER_MS,
        "ts_exch": start + ms_quote * NS_PER_MS,
        "seq": np.arange(n_quotes),
        "bid": _price(mid[ms_quote // 10] - 1),
        "bid_qty": _qty(rng, n_quotes),
        "ask": _price(mid[ms_quote // 10] + 1),
        "ask_qty": _qty(rng, n_quotes),
    }
    return Ticks(
        trades=pl.DataFrame(trades, schema=TRADES),
        quotes=pl.DataFrame(quotes, schema=QUOTES),
        book=empty(book_columns(0)),
        start=start,
        end=start + NS_PER_DAY,
        gaps=np.empty(0, np.int64),
    )


def shipped(group: str, kind: str, **changes: Any) -> dict[str, Any]:
    """The numbers of conf/<group>/<kind>.yaml, interpolations resolved by `changes`."""
    return read_yaml(CONF / group / f"{kind}.yaml") | changes


def _price(half_ticks: np.ndarray) -> np.ndarray:
    return np.round(half_ticks * (TICK / 2), 2)


def _qty(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.round(rng.lognormal(-3, 1, n) + 0.001, 3)
