"""Fills in, LEDGER out: returns, quantities and markouts follow from the fills alone."""

from __future__ import annotations

import numpy as np
import polars as pl

from hft.clock import NS_PER_MS
from hft.schema import LEDGER

# The tau of docs/definitions.md 2, Markout.
MARKOUTS_MS = {"markout_100ms_bps": 100, "markout_1s_bps": 1_000, "markout_10s_bps": 10_000}


def make_ledger(fills: dict[str, np.ndarray], quotes: pl.DataFrame, *, until: int) -> pl.DataFrame:
    """`fills`: LEDGER's bar, side, ts, price, maker and reason columns.

    `qty` is the base quantity that one unit of quote currency buys at the entry: every position
    has the same notional, so that bps add up. A markout is the side times the move from the entry
    price to the mid known tau later; null without quotes, and where that is at or after `until`.
    """
    side, price = fills["side"], fills["price_entry"]
    derived = {
        # An execution knows no folds; `hft.trading.execution.simulate` sets the number.
        "fold": np.zeros(len(side), np.int64),
        "qty": 1 / price,
        # Fills have the spread in them: gross is after the spread and before fees.
        "gross_bps": side * (fills["price_exit"] / price - 1) * 1e4,
    }
    ts_quotes = quotes["ts_recv"].to_numpy()
    for name, delay_ms in MARKOUTS_MS.items():
        at = fills["ts_entry"] + delay_ms * NS_PER_MS
        # side="right": a quote at that very time is known.
        known = np.searchsorted(ts_quotes, at, side="right") - 1
        mid = _mid_at(quotes, np.where(at < until, known, -1))
        derived[name] = side * (mid - price) / price * 1e4
    frame = pl.DataFrame({**fills, **derived}).select(*LEDGER).cast(pl.Schema(LEDGER))
    return frame.with_columns(pl.col(*MARKOUTS_MS).fill_nan(None))


def _mid_at(quotes: pl.DataFrame, index: np.ndarray) -> np.ndarray:
    """NaN at index -1."""
    if not len(quotes):
        return np.full(len(index), np.nan)
    # Index -1 reads the last quote, and the mask below drops it.
    bid, ask = quotes["bid"].to_numpy(), quotes["ask"].to_numpy()
    return np.where(index >= 0, (bid[index] + ask[index]) / 2, np.nan)
