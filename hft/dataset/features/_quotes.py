"""The quotes of a stream that came in during each bar, and the order flow imbalance in them."""

from __future__ import annotations

import numpy as np
import polars as pl

from hft.clock import NS_PER_DAY
from hft.market.bars import quote_bounds
from hft.system.kernels import kernel


def flow_per_bar(
    stream: pl.DataFrame, columns: tuple[str, str, str, str], bars: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Per bar the sum of order flow imbalance and the mean depth of the quotes that came in.

    `columns` name bid, bid_qty, ask and ask_qty in `stream` (QUOTES, or a level of BOOK). Depth is
    the mean of the two quantities, averaged over the bar's quotes; where none came in, that of the
    standing quote. nan before the day's first quote.
    """
    ts_recv = stream["ts_recv"].to_numpy()
    first = day_begins(ts_recv, bars)
    bounds = quote_bounds(ts_recv, bars)
    bid, bid_qty, ask, ask_qty = (stream[c].to_numpy() for c in columns)
    # Quotes between a day's last bar and midnight belong to no bar. Without the maximum the next
    # day's first bar would have them.
    starts = np.maximum(bounds[:-1], first)
    return _flow(bid, bid_qty, ask, ask_qty, starts, bounds[1:], first)


def day_begins(ts_recv: np.ndarray, bars: pl.DataFrame) -> np.ndarray:
    """For each bar, the index of the first row of `ts_recv` in the bar's UTC day."""
    return np.searchsorted(ts_recv, bars["ts_open"].to_numpy() // NS_PER_DAY * NS_PER_DAY)


@kernel
def _flow(
    bid: np.ndarray,
    bid_qty: np.ndarray,
    ask: np.ndarray,
    ask_qty: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    day_begins: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    n = len(starts)
    flow, depth = np.full(n, np.nan), np.full(n, np.nan)
    for bar in range(n):
        if stops[bar] == day_begins[bar]:  # no quote of the day yet
            continue
        total = 0.0
        # From the day's second quote on: a flow is a difference, and a day knows no other day.
        for i in range(max(starts[bar], day_begins[bar] + 1), stops[bar]):
            # Cont, Kukanov and Stoikov 2014, eq. 4: what joined the best bid or bettered it less
            # what left it, and the mirror of that at the ask. nan (no such level) compares false
            # and so adds nothing.
            if bid[i] >= bid[i - 1]:
                total += bid_qty[i]
            if bid[i] <= bid[i - 1]:
                total -= bid_qty[i - 1]
            if ask[i] <= ask[i - 1]:
                total -= ask_qty[i]
            if ask[i] >= ask[i - 1]:
                total += ask_qty[i - 1]
        flow[bar] = total
        # At least one quote: where none came in, the one before the bar still stands.
        depth[bar] = _mean_depth(bid_qty, ask_qty, min(starts[bar], stops[bar] - 1), stops[bar])
    return flow, depth


@kernel
def _mean_depth(bid_qty: np.ndarray, ask_qty: np.ndarray, start: int, stop: int) -> float:
    total = 0.0
    for i in range(start, stop):
        total += (bid_qty[i] + ask_qty[i]) / 2
    return total / (stop - start)
