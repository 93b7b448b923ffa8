"""Labels/s of the triple barrier on ticks, against a plain loop over lists, print by print."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

import numpy as np
import polars as pl

from benchmarks import Result, race
from benchmarks.market import random_market, shipped
from hft.clock import NS_PER_MS
from hft.dataset.labels import build_labels
from hft.dataset.labels.triple_barrier import TripleBarrier
from hft.market.bars import build_bars
from hft.market.bars.tick import TickBars
from hft.market.ticks import Ticks
from hft.schema import BUY, HOLD, SELL

FULL = {"n_trades": 3_000_000, "bar_size": 20, "n_loop": 1_000, "repeats": 7}
QUICK = {"n_trades": 300_000, "bar_size": 20, "n_loop": 200, "repeats": 3}
SEED = 0
LATENCY_MS = 50


def measure(*, n_trades: int, bar_size: int, n_loop: int, repeats: int) -> Result:
    """The loop labels `n_loop` bars; the first of them is the first whose volatility is known."""
    ticks = random_market(n_trades, n_quotes=n_trades, seed=SEED)
    bars = build_bars(ticks, TickBars(**shipped("bars", "tick", size=bar_size)))
    spec = shipped_labels()
    first, market = spec.span + 1, Lists(ticks, bars)
    timed = race(
        {
            "hft": lambda: build_labels(ticks, bars, spec),
            "loop": lambda: loop(market, spec, range(first, first + n_loop)),
        },
        repeats=repeats,
    )
    labels, looped = timed["hft"].output, timed["loop"].output
    _require_same(looped, labels[first : first + n_loop])
    n_labels = len(labels) - labels["y"].null_count()
    shares = labels["y"].drop_nulls().value_counts().sort("y")["count"] / n_labels
    return Result(
        name="labels",
        unit="labels/s",
        rates={"hft": n_labels / timed["hft"].seconds, "loop": n_loop / timed["loop"].seconds},
        data=f"{n_trades:,} trades and as many quotes, seed {SEED}, {bars.height:,} tick bars of "
        f"{bar_size}; horizon {spec.horizon} bars, width {spec.width}; loop: {n_loop:,} of them",
        expected={"loop": 30.0, "": 5e6},
        details={"shares_hold_buy_sell": [round(s, 3) for s in shares]},
    )


def shipped_labels() -> TripleBarrier:
    numbers = shipped("labels", "triple_barrier", latency_ms=LATENCY_MS)
    return TripleBarrier(**numbers | {"pt": numbers["width"], "sl": numbers["width"]})


class Lists:
    """The market as lists, as a plain program would hold it; making them is not timed."""

    def __init__(self, ticks: Ticks, bars: pl.DataFrame) -> None:
        self.ts_trade, self.price = (ticks.trades[name].to_list() for name in ("ts_recv", "price"))
        self.ts_quote, self.bid, self.ask = (
            ticks.quotes[name].to_list() for name in ("ts_recv", "bid", "ask")
        )
        self.ts, self.close = bars["ts"].to_list(), bars["close"].to_list()
        self.stop = bars["n_trades"].cum_sum().to_list()


def loop(market: Lists, spec: TripleBarrier, wanted: range) -> list[tuple[int, int, float]]:
    """(y, t_end, ret_bps) of the `wanted` bars.

    All of them must come after the first quote and lie in one segment.
    """
    sigma, labels = volatilities(market.close[: wanted.stop], spec.span), []
    price, ts_trade, latency_ns = market.price, market.ts_trade, round(spec.latency_ms * NS_PER_MS)
    for t in wanted:
        due = market.ts[t] + latency_ns
        quote = bisect_right(market.ts_quote, due) - 1
        entry = (market.bid[quote] + market.ask[quote]) / 2
        distance = max(spec.pt * sigma[t] * math.sqrt(spec.horizon), spec.floor_bps * 1e-4)
        upper, lower = entry * (1 + distance), entry * (1 - distance)
        expiry = t + spec.horizon
        y, t_end, last = HOLD, market.ts[expiry], market.stop[expiry] - 1
        for i in range(bisect_left(ts_trade, due + 1), market.stop[expiry]):
            if price[i] >= upper:
                y, t_end, last = BUY, ts_trade[i], i
                break
            if price[i] <= lower:
                y, t_end, last = SELL, ts_trade[i], i
                break
        labels.append((y, t_end, (price[last] / entry - 1) * 1e4))
    return labels


def volatilities(close: list[float], span: int) -> list[float]:
    """Root of the EWMA of squared log returns up to each bar; the first return starts it."""
    a, variance, out = 2 / (span + 1), 0.0, [math.nan]
    for t in range(1, len(close)):
        r = math.log(close[t] / close[t - 1])
        variance = r * r if t == 1 else (1 - a) * variance + a * r * r
        out.append(math.sqrt(variance))
    return out


def _require_same(looped: list[tuple[int, int, float]], labels: pl.DataFrame) -> None:
    y, t_end, ret_bps = (np.array(column) for column in zip(*looped, strict=True))
    if not (np.array_equal(y, labels["y"]) and np.array_equal(t_end, labels["t_end"])):
        raise AssertionError("labels: the sides disagree on classes or end times")
    np.testing.assert_allclose(ret_bps, labels["ret_bps"], rtol=1e-9, atol=1e-9)
