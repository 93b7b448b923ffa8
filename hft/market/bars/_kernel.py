"""The sequential part of every kind of bar: one pass over a day's trades finds where bars close and
what their trades add up to.

Sums run in stream order and restart with each bar, so that a bar is bit for bit the same however
much data follows it.
"""

from __future__ import annotations

import numpy as np

from hft.clock import NS_PER_HOUR
from hft.system.kernels import kernel

# Float sums of decimals fall short of a decimal threshold by 1e-16 (0.1 ten times is below 1) and
# would misplace bars.
RELATIVE_SLACK = 1e-9

# Rows of the two arrays that `cut` returns.
COUNTS = ("ts_open", "ts", "n_trades")
VALUES = ("open", "high", "low", "close", "vwap", "volume", "turnover", "buy_volume", "sell_volume")


def cut(
    ts_recv: np.ndarray,
    price: np.ndarray,
    qty: np.ndarray,
    side: np.ndarray,
    stops: np.ndarray,
    hour_threshold: np.ndarray,
    *,
    in_quote: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Int64 rows COUNTS and float64 rows VALUES, one column per bar; the last bar may still be
    open.

    A bar ends at each of `stops` (increasing trade indexes, the last one the number of trades), and
    where the sum of qty, with `in_quote` that of price * qty, reaches the threshold of the hour in
    which the bar opened. `hour_threshold` has an entry per hour of the UTC day: inf for no
    threshold; nan, which only the day's first hours may have, where no bar opens. A trade of side 0
    counts in neither side's volume. The excess over a threshold is dropped.
    """
    # Memory that is never touched costs nothing, growing an array does; and numpy allocates in huge
    # pages, numba does not. Together 1.9 times faster on bars of 20 trades.
    capacity = len(ts_recv) // 8 + 1024
    counts = np.empty((len(COUNTS), capacity), np.int64)
    values = np.empty((len(VALUES), capacity), np.float64)
    return _cut(ts_recv, price, qty, side, stops, hour_threshold, in_quote, counts, values)


@kernel
def _cut(
    ts_recv: np.ndarray,
    price: np.ndarray,
    qty: np.ndarray,
    side: np.ndarray,
    stops: np.ndarray,
    hour_threshold: np.ndarray,
    in_quote: bool,  # noqa: FBT001 (numba knows no keyword-only arguments)
    counts: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    n_bars = 0
    i = 0
    while i < len(ts_recv) and np.isnan(hour_threshold[ts_recv[i] // NS_PER_HOUR % 24]):
        i += 1
    for stop in stops:
        while i < stop:
            first = i
            # Taken once a bar: it stays that of the opening hour (docs/definitions.md 5.6).
            threshold = hour_threshold[ts_recv[i] // NS_PER_HOUR % 24] * (1 - RELATIVE_SLACK)
            high = low = price[i]
            volume = turnover = buy = sell = 0.0
            reached = False
            while i < stop and not reached:
                high = max(high, price[i])
                low = min(low, price[i])
                volume += qty[i]
                turnover += price[i] * qty[i]
                # Products instead of branches: sides are coin flips, and mispredicting one costs
                # more than the sums.
                buy += qty[i] * (side[i] > 0)
                sell += qty[i] * (side[i] < 0)
                # AFML 2.3.1: the trade that reaches the threshold is the bar's last.
                reached = (turnover if in_quote else volume) >= threshold
                i += 1
            if n_bars == counts.shape[1]:
                counts, values = _doubled(counts), _doubled(values)
            counts[0, n_bars], counts[1, n_bars], counts[2, n_bars] = (
                ts_recv[first],
                ts_recv[i - 1],
                i - first,
            )
            values[0, n_bars], values[1, n_bars] = price[first], high
            values[2, n_bars], values[3, n_bars] = low, price[i - 1]
            # The mean of equal prices may round to just outside of them.
            values[4, n_bars] = min(max(turnover / volume, low), high)
            values[5, n_bars], values[6, n_bars] = volume, turnover
            values[7, n_bars], values[8, n_bars] = buy, sell
            n_bars += 1
    return counts[:, :n_bars], values[:, :n_bars]


@kernel
def _doubled(rows: np.ndarray) -> np.ndarray:
    wider = np.empty((rows.shape[0], 2 * rows.shape[1]), rows.dtype)
    wider[:, : rows.shape[1]] = rows
    return wider


@kernel
def interval_stops(ts_recv: np.ndarray, origin: int, size_ns: int) -> np.ndarray:
    """Trade indexes at which a new interval [origin + k size, origin + (k+1) size) begins; last the
    number of trades.
    """
    stops = np.empty(len(ts_recv) + 1, np.int64)
    n_stops = 0
    # So that the first trade begins an interval; a stop at 0 cuts no bar.
    end = ts_recv[0] if len(ts_recv) else np.int64(0)
    for i in range(len(ts_recv)):
        if ts_recv[i] >= end:
            stops[n_stops] = i
            n_stops += 1
            # One division an interval instead of one a trade.
            end = origin + ((ts_recv[i] - origin) // size_ns + 1) * size_ns
    stops[n_stops] = len(ts_recv)
    # A view would keep the buffer of one entry per trade alive.
    return stops[: n_stops + 1].copy()
