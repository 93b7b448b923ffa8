"""Simulates a driftless walk shaped like given bars: the null market against which label shares are
read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from hft.market.bars import QUOTE_STATE
from hft.market.ticks import Ticks
from hft.schema import BARS, QUOTES, TRADES, book_columns, empty

# 2,000 paths that do not overlap give shares a standard error of one percent, in 0.15 to 0.3 s.
N_PRINTS = 4_000_000
PRINTS_PER_PATH = 2_000
MAX_BARS = 500_000
# Any level will do: barriers are fractions of a price, and returns are logs.
_START = 60_000.0


def walk_like(bars: pl.DataFrame, *, horizon: int, seed: int) -> tuple[Ticks, pl.DataFrame]:
    """Ticks and BARS of a Gaussian walk in log price with the mean trades, mean duration and
    volatility of `bars`.

    A path of `horizon` bars has PRINTS_PER_PATH prints at most. Hold shares are then within a
    percent of those of any finer walk, because a print's discreteness shifts barriers by only 0.58
    print sigmas (Broadie, Glasserman and Kou 1997).
    """
    n_trades, duration_ns = bars.select(
        pl.col("n_trades").mean(), (pl.col("ts") - pl.col("ts_open")).mean()
    ).row(0)
    per_bar = max(1, round(min(n_trades, PRINTS_PER_PATH / horizon)))
    n_bars = min(N_PRINTS // per_bar, MAX_BARS)
    # Prints of a bar share its variance, so that any number of them gives bars of one volatility.
    sigma = volatility(bars) / np.sqrt(per_bar)
    pace_ns = max(1, round(duration_ns / per_bar))
    log_price = np.cumsum(np.random.default_rng(seed).standard_normal(n_bars * per_bar) * sigma)
    trades = _prints(np.exp(log_price) * _START, pace_ns)
    ticks = Ticks(
        trades=trades,
        # A walk has no spread: without quotes labels enter at a print (docs/definitions.md 5.12).
        quotes=empty(QUOTES),
        book=empty(book_columns(0)),
        start=0,
        end=int(trades["ts_recv"][-1]) + 1,
        gaps=np.empty(0, np.int64),
    )
    return ticks, _bars_of(trades, n_bars)


def volatility(bars: pl.DataFrame) -> float:
    """Root mean square of the log returns between neighbouring bars of one segment; 0 where there
    is none.
    """
    # Rows may be a selection, and a return across a hole is not the return of a bar.
    neighbours = (pl.col("bar").diff() == 1) & (pl.col("segment").diff() == 0)
    square = bars.select(pl.col("close").log().diff().filter(neighbours).pow(2).mean()).item()
    return float(np.sqrt(square or 0.0))


def _prints(price: np.ndarray, pace_ns: int) -> pl.DataFrame:
    ts = np.arange(price.size) * pace_ns
    # Labels read prices and times; size and side are there for the contract alone.
    columns = {"ts_recv": ts, "ts_exch": ts, "id": np.arange(price.size), "price": price}
    return pl.DataFrame(
        columns | {"qty": np.ones(price.size), "side": np.zeros(price.size)},
        schema_overrides=TRADES,
    )


def _bars_of(trades: pl.DataFrame, n_bars: int) -> pl.DataFrame:
    price, ts = (trades[c].to_numpy().reshape(n_bars, -1) for c in ("price", "ts_recv"))
    per_bar = price.shape[1]
    flat: dict[str, Any] = {
        "segment": 0,
        "partial": False,
        "n_trades": per_bar,
        "volume": float(per_bar),
        "buy_volume": 0.0,
        "sell_volume": 0.0,
        **dict.fromkeys(QUOTE_STATE),
    }
    columns = {
        "bar": np.arange(n_bars),
        "ts_open": ts[:, 0],
        "ts": ts[:, -1],
        "open": price[:, 0],
        "high": price.max(axis=1),
        "low": price.min(axis=1),
        "close": price[:, -1],
        "vwap": price.mean(axis=1),
        "turnover": price.sum(axis=1),
    }
    frame = pl.DataFrame(columns).with_columns(
        pl.lit(v, dtype=BARS[name]).alias(name) for name, v in flat.items()
    )
    return frame.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())
