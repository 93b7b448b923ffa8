"""A small random market for tests, without simulator or files: the price is a random walk, trades
tie in time, sides are known.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

from hft.clock import NS_PER_DAY, NS_PER_MS
from hft.market.ticks import Ticks
from hft.schema import QUOTES, TRADES, book_columns, empty


def random_ticks(
    seed: int = 0,
    *,
    n_trades: int = 5000,
    n_days: int = 1,
    quotes: bool = True,
    start: str = "2024-01-01",
) -> Ticks:
    """`n_trades` a day over `n_days` whole UTC days. Times lie on a millisecond grid, and a third
    of the trades tie.

    The range is half-open and complete (`end` is a midnight). Bid and ask lie one tick of 0.1
    apart, around the trade price.
    """
    rng = np.random.default_rng(seed)
    first = int(dt.datetime.fromisoformat(start).replace(tzinfo=dt.UTC).timestamp()) * 1_000_000_000
    n = n_trades * n_days
    day = np.repeat(np.arange(n_days), n_trades)
    ms_of_day = np.sort(rng.integers(0, 86_400_000, size=(n_days, n_trades)), axis=1)
    tied = rng.random((n_days, n_trades)) < 1 / 3
    for row, tie in zip(ms_of_day, tied, strict=True):
        for i in np.flatnonzero(tie[1:]) + 1:
            row[i] = row[i - 1]
    ts = first + day * NS_PER_DAY + ms_of_day.ravel() * NS_PER_MS
    mid = np.round(60_000 + np.cumsum(rng.normal(0, 2, n)), 1)
    side = np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8)
    trades = pl.DataFrame(
        {
            "ts_recv": ts,
            "ts_exch": ts - 5 * NS_PER_MS,
            "id": np.arange(n),
            "price": np.round(mid + side * 0.05, 2),
            "qty": np.round(rng.lognormal(-3, 1, n) + 0.001, 3),
            "side": side,
        },
        schema=TRADES,
    )
    first_quote = np.maximum(ts - NS_PER_MS * rng.integers(1, 4, n), first + day * NS_PER_DAY)
    ts_quote = np.sort(first_quote)
    frame = pl.DataFrame(
        {
            "ts_recv": ts_quote,
            "ts_exch": ts_quote - 5 * NS_PER_MS,
            "seq": np.arange(n),
            "bid": np.round(mid - 0.05, 2),
            "bid_qty": np.round(rng.lognormal(0, 1, n) + 0.001, 3),
            "ask": np.round(mid + 0.05, 2),
            "ask_qty": np.round(rng.lognormal(0, 1, n) + 0.001, 3),
        },
        schema=QUOTES,
    )
    return Ticks(
        trades=trades,
        quotes=frame if quotes else empty(QUOTES),
        book=empty(book_columns(0)),
        start=first,
        end=first + n_days * NS_PER_DAY,
        gaps=np.empty(0, np.int64),
    )
