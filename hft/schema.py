"""Column contracts between rooms; checked once, on the way out of a room.

Times are int64 nanoseconds UTC; prices in quote currency and quantities in base currency, float64;
`_bps` are basis points. Everything after BARS joins on `bar`, never on a timestamp.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from hft.spec import UserError

Columns = dict[str, type[pl.DataType]]  # name -> type, in the order of the frame

TRADES: Columns = {
    # When we could have known of the row; never decreases (docs/definitions.md 5.1).
    "ts_recv": pl.Int64,
    "ts_exch": pl.Int64,
    "id": pl.Int64,
    "price": pl.Float64,
    "qty": pl.Float64,
    # Of the taker: +1 bought, -1 sold, 0 unknown (docs/definitions.md 5.3).
    "side": pl.Int8,
}
QUOTES: Columns = {
    "ts_recv": pl.Int64,
    "ts_exch": pl.Int64,
    "seq": pl.Int64,
    "bid": pl.Float64,
    "bid_qty": pl.Float64,
    "ask": pl.Float64,
    "ask_qty": pl.Float64,
}
BARS: Columns = {
    "bar": pl.Int64,
    # Gaps so far: no window rolls across a change of it (docs/definitions.md 5.9).
    "segment": pl.Int64,
    # UTC midnight closed the bar before its condition was met (docs/definitions.md 5.4).
    "partial": pl.Boolean,
    "ts_open": pl.Int64,
    # When the bar is known: its closing trade, or the end of a time bar (docs/definitions.md 5.7).
    "ts": pl.Int64,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "vwap": pl.Float64,
    "volume": pl.Float64,
    "turnover": pl.Float64,
    "n_trades": pl.Int64,
    "buy_volume": pl.Float64,
    "sell_volume": pl.Float64,
    # Known strictly before `ts`, because trades come before quotes of the same time
    # (docs/definitions.md 5.1).
    "bid": pl.Float64,
    "ask": pl.Float64,
    "bid_qty": pl.Float64,
    "ask_qty": pl.Float64,
}
LABELS: Columns = {
    "bar": pl.Int64,
    # All but `bar` are null together where the class is unknowable, as for the last H bars of a
    # segment (docs/definitions.md 5.14), or where the bar carries no decision.
    "y": pl.Int8,
    "t_end": pl.Int64,
    "ret_bps": pl.Float64,
    "weight": pl.Float64,
}
PREDICTIONS: Columns = {
    "bar": pl.Int64,
    "ts": pl.Int64,
    "fold": pl.Int64,
    "seed": pl.Int64,
    "split": pl.String,
    # 0 in training; the paths of combinatorial folds are in the backtest.
    "path": pl.Int64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
    "p_sell": pl.Float64,
    "y": pl.Int8,
}
LEDGER: Columns = {
    "bar": pl.Int64,
    "fold": pl.Int64,
    "side": pl.Int8,
    "qty": pl.Float64,
    "ts_entry": pl.Int64,
    "price_entry": pl.Float64,
    # Whether a leg pays the maker's fee. False so far: only takers are simulated
    # (docs/definitions.md 4).
    "maker_entry": pl.Boolean,
    "ts_exit": pl.Int64,
    "price_exit": pl.Float64,
    "maker_exit": pl.Boolean,
    "reason": pl.String,
    "gross_bps": pl.Float64,
    # D (mid tau later - p), docs/definitions.md 2.
    "markout_100ms_bps": pl.Float64,
    "markout_1s_bps": pl.Float64,
    "markout_10s_bps": pl.Float64,
}

DAILY: Columns = {
    "fold": pl.Int64,
    "seed": pl.Int64,
    "day": pl.Date,
    "gross_bps": pl.Float64,
    "trades": pl.Int64,
}

NET = "net_bps@"
# The values of `y`, and the places of the classes in every array of probabilities.
HOLD, BUY, SELL = 0, 1, 2
CLASS_NAMES = ("hold", "buy", "sell")


class SchemaError(UserError):
    """A frame that breaks its room's column contract."""


def book_columns(n_levels: int) -> Columns:
    """BOOK with `n_levels` levels a side, best first: bid_0.., bid_qty_0.., ask_0.., ask_qty_0.."""
    columns: Columns = {"ts_recv": pl.Int64, "ts_exch": pl.Int64, "seq": pl.Int64}
    for name in ("bid", "bid_qty", "ask", "ask_qty"):
        columns |= {f"{name}_{k}": pl.Float64 for k in range(n_levels)}
    return columns


def features_columns(names: list[str]) -> Columns:
    # Features are computed in float64 and stored as float32 (docs/design.md 2).
    return {"bar": pl.Int64, **dict.fromkeys(names, pl.Float32)}


def daily_columns(schedules: Iterable[str]) -> Columns:
    """DAILY with a column net_bps@<schedule> per fee schedule: what each UTC day closed."""
    return {**DAILY, **{f"{NET}{name}": pl.Float64 for name in schedules}}


def empty(contract: Columns) -> pl.DataFrame:
    return pl.DataFrame(schema=contract)


def check(frame: pl.DataFrame, contract: Columns, *, where: str) -> pl.DataFrame:
    """`frame` itself. Raises SchemaError, with every difference, where its names, order or types
    are not the contract's.
    """
    missing = [c for c in contract if c not in frame.columns]
    extra = [c for c in frame.columns if c not in contract]
    wrong = [
        f"{c} is {frame.schema[c]}, must be {t}"
        for c, t in contract.items()
        if frame.schema.get(c, t) != t
    ]
    if missing or extra or wrong:
        parts = [f"missing {missing}"] * bool(missing) + [f"unknown {extra}"] * bool(extra) + wrong
        raise SchemaError(f"{where}: columns break the contract: {'; '.join(parts)}")
    # A network takes its features by position, so the order is part of the contract.
    if frame.columns != list(contract):
        raise SchemaError(
            f"{where}: columns must be in the order {list(contract)}, got {frame.columns}"
        )
    return frame
