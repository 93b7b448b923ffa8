"""Rows/s of `build_bars` on trades in memory; a polars group-by and a loop make the same bars.

Tick bars, because a group-by can make those: bars by volume or turnover close by a running sum that
restarts, which no group-by expresses, so for them only the loop is left.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from benchmarks import Result, race
from benchmarks.market import random_market
from hft.market.bars import build_bars
from hft.market.bars.tick import TickBars

FULL = {"n_trades": 4_000_000, "n_loop": 200_000, "repeats": 9}
QUICK = {"n_trades": 500_000, "n_loop": 50_000, "repeats": 3}
SEED = 0
TRADES_PER_BAR = (
    200  # some seconds of a live perpetual; at 25 the frames' own cost weighs more (README.md)
)
EXACT = ("ts_open", "ts", "n_trades", "open", "high", "low", "close")
SUMS = ("vwap", "volume", "turnover", "buy_volume", "sell_volume")


def measure(*, n_trades: int, n_loop: int, repeats: int) -> Result:
    ticks = random_market(n_trades, n_quotes=0, seed=SEED)
    spec = TickBars(kind="tick", size=TRADES_PER_BAR)
    rows = [ticks.trades[name][:n_loop].to_list() for name in ("ts_recv", "price", "qty", "side")]
    timed = race(
        {
            "hft": lambda: build_bars(ticks, spec),
            "polars": lambda: group_by(ticks.trades, spec.size, key_is_sorted=False),
            "polars, key declared sorted": lambda: group_by(
                ticks.trades, spec.size, key_is_sorted=True
            ),
            "loop": lambda: loop(*rows, spec.size),
        },
        repeats=repeats,
    )
    bars = timed["hft"].output
    _require_same(timed["polars"].output, bars)
    _require_same(timed["polars, key declared sorted"].output, bars)
    _require_same(pl.DataFrame(timed["loop"].output, orient="row", schema=[*EXACT, *SUMS]), bars)
    sizes = {side: n_loop if side == "loop" else n_trades for side in timed}
    return Result(
        name="bars",
        unit="rows/s",
        rates={side: sizes[side] / t.seconds for side, t in timed.items()},
        data=f"{n_trades:,} random trades (loop: the first {n_loop:,}), seed {SEED}, tick bars of "
        f"{spec.size}",
        expected={"polars": 10.0},
        details={"polars_threads": pl.thread_pool_size(), "hft_threads": 1},
    )


def group_by(trades: pl.DataFrame, size: int, *, key_is_sorted: bool) -> pl.DataFrame:
    """The two fastest formulations found; benchmarks/README.md has the others.

    Both make products as columns. One hashes the key in any order and sorts afterwards, the other
    promises polars that the key is sorted.
    """
    price, qty, side = pl.col("price"), pl.col("qty"), pl.col("side")
    key = pl.int_range(pl.len()) // size
    columns = {
        "bar": key.set_sorted() if key_is_sorted else key,
        "turnover": price * qty,
        "buy_volume": qty * (side > 0),
        "sell_volume": qty * (side < 0),
    }
    bars = trades.lazy().with_columns(**columns).group_by("bar", maintain_order=key_is_sorted)
    aggregated = bars.agg(
        ts_open=pl.col("ts_recv").first(),
        ts=pl.col("ts_recv").last(),
        n_trades=pl.len(),
        open=price.first(),
        high=price.max(),
        low=price.min(),
        close=price.last(),
        volume=qty.sum(),
        turnover=pl.col("turnover").sum(),
        buy_volume=pl.col("buy_volume").sum(),
        sell_volume=pl.col("sell_volume").sum(),
    )
    return aggregated.sort("bar").with_columns(vwap=pl.col("turnover") / pl.col("volume")).collect()


def loop(
    ts_recv: list[int], price: list[float], qty: list[float], side: list[int], size: int
) -> list[tuple]:
    """Whole bars only, in the order EXACT + SUMS."""
    bars = []
    n, volume, turnover, buy, sell = 0, 0.0, 0.0, 0.0, 0.0
    for ts, p, q, s in zip(ts_recv, price, qty, side, strict=True):
        if n == 0:
            ts_open, opened, high, low = ts, p, p, p
        elif p > high:
            high = p
        elif p < low:
            low = p
        n += 1
        volume += q
        turnover += p * q
        if s > 0:
            buy += q
        elif s < 0:
            sell += q
        if n == size:
            bars.append(
                (
                    ts_open,
                    ts,
                    n,
                    opened,
                    high,
                    low,
                    p,
                    turnover / volume,
                    volume,
                    turnover,
                    buy,
                    sell,
                )
            )
            n, volume, turnover, buy, sell = 0, 0.0, 0.0, 0.0, 0.0
    return bars


def _require_same(other: pl.DataFrame, bars: pl.DataFrame) -> None:
    """Compares the bars that both have whole; midnight closes hft's last bar at another `ts`."""
    n = min(other.height, bars["partial"].not_().sum())
    if n == 0 or not (
        other[:n].select(EXACT).cast(bars.select(EXACT).schema).equals(bars[:n].select(EXACT))
    ):
        raise AssertionError("bars: the sides disagree on counts, times or prices")
    for name in SUMS:  # polars sums in another order
        np.testing.assert_allclose(other[name][:n], bars[name][:n], rtol=1e-10, atol=1e-9)
