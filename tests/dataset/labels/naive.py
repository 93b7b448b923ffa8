"""The slow twin of every label: reads one merged stream of prints and quotes, event by event
(docs/definitions.md 5.12-5.14).
"""

from __future__ import annotations

import math

from hft.schema import BUY, HOLD, SELL


def read_stream(ticks):
    """(ts, 0, price) of prints and (ts, 1, mid) of quotes in stream order: by time, prints before
    quotes at a tie.
    """
    prints = [(ts, 0, price) for ts, price in ticks.trades.select("ts_recv", "price").rows()]
    quotes = [
        (ts, 1, (bid + ask) / 2)
        for ts, bid, ask in ticks.quotes.select("ts_recv", "bid", "ask").rows()
    ]
    return sorted(prints + quotes, key=lambda event: event[:2])


def naive_path(ticks, bars, t, horizon, latency_ns):
    """The entry price, and the prints after it up to the close of bar t + horizon; None where there
    is no entry or no such print.
    """
    segment, ts, sizes = bars["segment"].to_list(), bars["ts"].to_list(), bars["n_trades"].to_list()
    if t + horizon >= len(ts) or segment[t + horizon] != segment[t]:
        return None
    stream = read_stream(ticks)
    positions = [i for i, event in enumerate(stream) if event[1] == 0]
    closing, last = positions[sum(sizes[: t + 1]) - 1], positions[sum(sizes[: t + horizon + 1]) - 1]
    due = ts[t] + latency_ns
    gap = max((g for g in ticks.gaps.tolist() if g <= due), default=-math.inf)
    in_force = [event[2] for event in stream if event[1] == 1 and gap <= event[0] <= due]
    if in_force:
        entry, begin = (
            in_force[-1],
            next((i for i, e in enumerate(stream) if e[0] > due), len(stream)),
        )
    else:
        later = [i for i in positions if i > closing and stream[i][0] >= due]
        if not later:
            return None
        entry, begin = stream[later[0]][2], later[0] + 1
    path = [event for event in stream[begin : last + 1] if event[1] == 0]
    return (entry, path) if path else None


def naive_trade(path, take, stop, *, is_long):
    """Where in the path one trade, taken alone, takes its profit; None where it does not."""
    for i, (_, _, price) in enumerate(path):
        if price >= take if is_long else price <= take:
            return i
        if price <= stop if is_long else price >= stop:
            return None
    return None


def naive_triple(ticks, bars, t, horizon, latency_ns, tp, sl):
    """(y, t_end, ret_bps) of bar t, None where unknowable; tp and sl are price fractions."""
    found = naive_path(ticks, bars, t, horizon, latency_ns)
    if found is None or math.isnan(tp):
        return None
    entry, path = found
    long = naive_trade(path, entry * (1 + tp), entry * (1 - sl), is_long=True)
    short = naive_trade(path, entry * (1 - tp), entry * (1 + sl), is_long=False)
    if long is None and short is None:
        return HOLD, bars["ts"][t + horizon], (path[-1][2] / entry - 1) * 1e4
    wins = long is not None and (short is None or long < short)
    ts, _, price = path[long if wins else short]
    return BUY if wins else SELL, ts, (price / entry - 1) * 1e4


def naive_fixed(ticks, bars, t, horizon, latency_ns, threshold_bps):
    found = naive_path(ticks, bars, t, horizon, latency_ns)
    if found is None:
        return None
    entry, path = found
    ret_bps = (path[-1][2] / entry - 1) * 1e4
    return (
        BUY if ret_bps > threshold_bps else SELL if ret_bps < -threshold_bps else HOLD,
        bars["ts"][t + horizon],
        ret_bps,
    )


def rows(labels):
    """LABELS in the form of the twins: (y, t_end, ret_bps), or None."""
    return [None if row[1] is None else row[1:4] for row in labels.rows()]
