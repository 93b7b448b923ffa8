"""Tells which labels need ticks, because the bars' highs and lows alone do not settle them."""

from __future__ import annotations

import numpy as np
import polars as pl

from hft.dataset.barriers import Exits, bar_of
from hft.dataset.labels._paths import Paths
from hft.schema import BUY, SELL
from hft.system.kernels import kernel


def needs_prints(
    paths: Paths, bars: pl.DataFrame, exits: Exits, ends: np.ndarray, offered_T3: np.ndarray
) -> np.ndarray:
    """bool[T]: true where the bar that decides the label's long or short trade also holds the
    entry, touches both barriers of the trade, or lets both trades win.

    `ends` is the row of the bar in which each label ends, -1 where there is no label.
    """
    return _needs_prints(
        bars["high"].to_numpy(),
        bars["low"].to_numpy(),
        paths.bounds,
        paths.entry,
        paths.first,
        ends,
        exits.take_profit,
        exits.stop_loss,
        offered_T3[:, BUY],
        offered_T3[:, SELL],
    )


@kernel
def _needs_prints(
    highs: np.ndarray,
    lows: np.ndarray,
    bounds: np.ndarray,
    entry: np.ndarray,
    first: np.ndarray,
    ends: np.ndarray,
    take_profit: np.ndarray,
    stop_loss: np.ndarray,
    long: np.ndarray,
    short: np.ndarray,
) -> np.ndarray:
    out = np.zeros(entry.size, np.bool_)
    bar = 0
    for t in range(entry.size):
        if ends[t] < 0:
            continue
        bar = bar_of(bounds, bar, first[t])
        # The first bar that lies behind the entry entirely.
        whole = bar if bounds[bar] == first[t] else bar + 1
        p, tp, sl = entry[t], take_profit[t], stop_loss[t]
        # Unequal, so that two trades which never win do not seem to win in the same bar.
        long_wins, short_wins = -1, -2
        if long[t]:
            unsure, long_wins, _ = _decided(
                highs, lows, bar, whole, ends[t], p * (1 + tp), p * (1 - sl)
            )
            out[t] |= unsure
        if short[t] and (tp != sl or not long[t]):  # else its barriers are the long's
            unsure, _, below = _decided(
                highs, lows, bar, whole, ends[t], p * (1 + sl), p * (1 - tp)
            )
            out[t] |= unsure
            short_wins = below if below >= 0 else -2
        out[t] |= long_wins == short_wins
    return out


@kernel
def _decided(
    highs: np.ndarray, lows: np.ndarray, bar: int, whole: int, last: int, upper: float, lower: float
) -> tuple[bool, int, int]:
    """Whether one trade needs prints; the bar that decides it at the upper barrier, else -1; that
    at the lower barrier, else -1.
    """
    for b in range(bar, last + 1):
        up, down = highs[b] >= upper, lows[b] <= lower
        if up or down:
            # In the bar of the entry the high or the low may be older than the entry.
            return (up and down) or b < whole, b if up else -1, b if down else -1
    return False, -1, -1
