"""The order flow of the synthetic market: limit orders, market orders and cancellations around a
given reference price.

In: one random stream, intensities, the latent drift and the moves of the reference. Out: integer
rows (ms, ticks, lots) of prints, best quotes and book snapshots. Levels are counted from the best
price outwards, L a side, never empty. The best bid is centre - extra, the best ask centre + 1 +
extra, so that the mid is centre + 1/2 whatever the spread.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hft.market.data._reference_walk import STEP_MS, draw_exponential, draw_geometric
from hft.system.kernels import kernel

SIZE_SPREAD = 1.2  # sigma of the log-normal order sizes: heavy tail, all moments finite
N_PARENTS = 3  # metaorders at work at a time (Lillo, Mike, Farmer 2005)
# A market order meets a geometric number of counterparties, whatever rests in the book.
PRINTS_PER_ORDER = 1.5


class Flow(NamedTuple):
    """Intensities per millisecond, sizes in lots. They are constant in clock time, so that trades
    never announce volatility.
    """

    market_per_ms: float
    limit_per_ms: float
    cancel_per_lot_ms: float
    market_lots: float
    limit_lots: float
    depth_lots: int  # where each queue starts
    lean: float
    sign_tail: float
    extra_scale: float
    levels: int
    book_levels: int
    book_interval_ms: int
    impact: bool


@kernel
def simulate_book(
    rng: np.random.Generator,
    flow: Flow,
    latent: np.ndarray,
    move_ms: np.ndarray,
    move_ticks: np.ndarray,
    centre: int,
    start_ms: int,
    duration_ms: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Rows of trades (ms, price, lots, sign), quotes (ms, bid, lots, ask, lots) and book (ms, bids,
    lots, asks, lots), the closing centre, and the number of order events. Quotes and book carry the
    state at the end of their millisecond.
    """
    # Rows: bid, ask; columns: from the best price outwards.
    queues = np.full((2, flow.levels), flow.depth_lots)
    place = np.array([centre, 0])  # centre, extra
    parents = np.zeros((N_PARENTS, 2), np.int64)  # sign, orders left
    trades, quotes = np.empty((1024, 4), np.int64), np.empty((1024, 5), np.int64)
    book = np.empty((1024, 1 + 4 * flow.book_levels), np.int64)
    n_trades = n_quotes = n_book = n_events = move = now_ms = 0
    t_order = draw_exponential(rng) / _intensity(flow, queues)
    while True:
        is_move = move < len(move_ms) and move_ms[move] <= t_order
        t = move_ms[move] if is_move else t_order
        # A millisecond is shown once it is over, by its last state, because its events tie. On real
        # data 75 % of consecutive trades share one too (docs/formats.md 1).
        if int(t) > now_ms or t >= duration_ms:
            until_ms = min(int(t), duration_ms)
            quotes, n_quotes = _show_quote(quotes, n_quotes, queues, place, start_ms + now_ms)
            book, n_book = _show_book(
                book, n_book, queues, place, start_ms + now_ms, start_ms + until_ms, flow
            )
            now_ms = until_ms
        if t >= duration_ms:
            return trades[:n_trades], quotes[:n_quotes], book[:n_book], place[0], n_events
        n_events += 1
        if is_move:
            # The queues go along unchanged, so nothing in them tells that the price has moved.
            place[0] += move_ticks[move]
            place[1] = draw_geometric(rng, flow.extra_scale)
            move += 1
            # t_order stays: a move changes no queue, and so no intensity.
            continue
        lean = flow.lean * latent[now_ms // STEP_MS]
        u = rng.random() * _intensity(flow, queues)
        if u < flow.market_per_ms:
            sign = _draw_sign(rng, parents, lean, flow.sign_tail)
            trades, n_trades = _trade(
                rng, flow, queues, place, sign, start_ms + now_ms, trades, n_trades
            )
        elif u < flow.market_per_ms + flow.limit_per_ms:
            side = 0 if 2 * rng.random() < 1 + lean else 1
            queues[side, int(rng.random() * flow.levels)] += _draw_lots(rng, flow.limit_lots)
        else:
            _cancel(rng, flow, queues, place)
        t_order = t + draw_exponential(rng) / _intensity(flow, queues)


@kernel
def _intensity(flow: Flow, queues: np.ndarray) -> float:
    # Every resting lot is cancelled at the same rate, so that queues settle where arrivals balance
    # cancellations.
    return flow.market_per_ms + flow.limit_per_ms + flow.cancel_per_lot_ms * queues.sum()


@kernel
def _draw_lots(rng: np.random.Generator, mean: float) -> int:
    # Box and Muller, on the one kind of draw that is compiled anyway (draw_exponential).
    normal = math.sqrt(2 * draw_exponential(rng)) * math.cos(2 * math.pi * rng.random())
    # exp(s (n - s / 2)) has mean 1 for a standard normal n, so that `mean` is the mean size.
    return max(1, int(mean * math.exp(SIZE_SPREAD * (normal - SIZE_SPREAD / 2)) + 0.5))


@kernel
def _draw_sign(rng: np.random.Generator, parents: np.ndarray, lean: float, sign_tail: float) -> int:
    """+1 or -1: the sign of `lean` with probability |lean|, else that of a metaorder of Pareto
    length, whose side is a fair coin. The autocorrelation of signs falls as lag^-(sign_tail - 1).
    """
    if rng.random() < abs(lean):
        return 1 if lean > 0 else -1
    parent = parents[int(rng.random() * len(parents))]
    if parent[1] == 0:
        parent[0] = 1 if rng.random() < 0.5 else -1
        # Pareto by inversion: the tail of lengths sets the memory of signs (Lillo, Mike, Farmer
        # 2005).
        parent[1] = math.ceil((1 - rng.random()) ** (-1 / sign_tail))
    parent[1] -= 1
    return parent[0]


@kernel
def _trade(
    rng: np.random.Generator,
    flow: Flow,
    queues: np.ndarray,
    place: np.ndarray,
    sign: int,
    ms: int,
    trades: np.ndarray,
    n_trades: int,
) -> tuple[np.ndarray, int]:
    """One market order. Without impact its prints and their sizes do not depend on the book. If
    they were split at empty queues, a thin book would shorten tick bars and so announce the size of
    returns.
    """
    side = 1 if sign > 0 else 0
    # One more follows with chance q = 1 - 1 / PRINTS_PER_ORDER, which gives that mean.
    n_prints = 1 + draw_geometric(rng, 1 / math.log(1 - 1 / PRINTS_PER_ORDER))
    for _ in range(n_prints):
        lots = left = _draw_lots(rng, flow.market_lots)
        while left > 0:
            price = _best(place, side)
            filled = min(left, queues[side, 0])
            queues[side, 0] -= filled
            left -= filled
            if flow.impact or left == 0:
                trades = _room_for(trades, n_trades)
                row = trades[n_trades]
                row[0], row[1], row[2], row[3] = ms, price, filled if flow.impact else lots, sign
                n_trades += 1
            if queues[side, 0] == 0:
                _exhaust(rng, flow, queues, place, side, 0)
    return trades, n_trades


@kernel
def _cancel(rng: np.random.Generator, flow: Flow, queues: np.ndarray, place: np.ndarray) -> None:
    # Any resting lot, with the same chance: _intensity gives each the same rate.
    at = rng.random() * queues.sum()
    for side in range(2):
        for level in range(flow.levels):
            at -= queues[side, level]
            if at < 0:
                # What exceeds the queue is lost, so that queues end up longer than arrivals and
                # cancellations say, by a tenth at the shipped numbers.
                queues[side, level] -= min(queues[side, level], _draw_lots(rng, flow.limit_lots))
                if queues[side, level] == 0:
                    _exhaust(rng, flow, queues, place, side, level)
                return


@kernel
def _exhaust(
    rng: np.random.Generator,
    flow: Flow,
    queues: np.ndarray,
    place: np.ndarray,
    side: int,
    level: int,
) -> None:
    """Refills an empty queue with a hidden order, so that depletion never moves the mid. With
    impact an empty best queue moves the price by a tick instead, and uncovers a new far level.
    """
    if flow.impact and level == 0:
        place[0] += 1 if side == 1 else -1
        for k in range(flow.levels - 1):
            queues[side, k] = queues[side, k + 1]
        for k in range(flow.levels - 1, 0, -1):
            queues[1 - side, k] = queues[1 - side, k - 1]
        queues[side, -1] = flow.depth_lots
        queues[1 - side, 0] = _draw_lots(rng, flow.limit_lots)
    else:
        queues[side, level] = _draw_lots(rng, flow.limit_lots)


@kernel
def _best(place: np.ndarray, side: int) -> int:
    return place[0] + 1 + place[1] if side == 1 else place[0] - place[1]


@kernel
def _show_quote(
    quotes: np.ndarray, n: int, queues: np.ndarray, place: np.ndarray, ms: int
) -> tuple[np.ndarray, int]:
    quotes = _room_for(quotes, n)
    row, last = quotes[n], quotes[max(n - 1, 0)]
    row[0], row[1], row[2], row[3], row[4] = (
        ms,
        _best(place, 0),
        queues[0, 0],
        _best(place, 1),
        queues[1, 0],
    )
    # An unchanged row stays beyond the end, where the next one overwrites it.
    return quotes, n + _differs(row, last, n)


@kernel
def _show_book(
    book: np.ndarray,
    n: int,
    queues: np.ndarray,
    place: np.ndarray,
    ms: int,
    until_ms: int,
    flow: Flow,
) -> tuple[np.ndarray, int]:
    """Adds the state of [ms, until_ms), stamped with the first multiple of the book's interval in
    it, if there is one and the state has changed.
    """
    stamp = -(-ms // flow.book_interval_ms) * flow.book_interval_ms
    if stamp >= until_ms:
        return book, n
    book = _room_for(book, n)
    row, last = book[n], book[max(n - 1, 0)]
    row[0] = stamp
    for k in range(flow.book_levels):
        row[1 + k] = _best(place, 0) - k
        row[1 + flow.book_levels + k] = queues[0, k]
        row[1 + 2 * flow.book_levels + k] = _best(place, 1) + k
        row[1 + 3 * flow.book_levels + k] = queues[1, k]
    return book, n + _differs(row, last, n)


@kernel
def _differs(row: np.ndarray, last: np.ndarray, n: int) -> int:
    """1 when row n differs from the row before beyond its time (column 0), else 0."""
    for i in range(1, len(row)):
        if row[i] != last[i]:
            return 1
    # The first row is compared with itself.
    return 1 if n == 0 else 0


@kernel
def _room_for(rows: np.ndarray, n: int) -> np.ndarray:
    if n < len(rows):
        return rows
    larger = np.empty((2 * n, rows.shape[1]), np.int64)
    for i in range(n):  # a slice copy compiles for two seconds
        for j in range(rows.shape[1]):
            larger[i, j] = rows[i, j]
    return larger
