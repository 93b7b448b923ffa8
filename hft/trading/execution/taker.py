"""Market orders, one position at a time: across the spread, latency after each decision
(docs/definitions.md 5.15, 5.19).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_MS
from hft.dataset.barriers import first_touch
from hft.market.bars import trade_bounds
from hft.system.kernels import kernel
from hft.trading.execution import REASONS, ExecutionSpec
from hft.trading.ledger import make_ledger

if TYPE_CHECKING:
    from hft.dataset.barriers import Exits
    from hft.market.ticks import Ticks

TAKE_PROFIT, STOP_LOSS, TIME, END = range(len(REASONS))


# Named tuples, because numba compiles code that reads them, unlike dataclasses.
class _Bars(NamedTuple):
    ts: np.ndarray
    high: np.ndarray
    low: np.ndarray
    bounds: np.ndarray
    take_profit: np.ndarray
    stop_loss: np.ndarray


class _Market(NamedTuple):
    """All that may be read: the market before `until`. Fills are quotes, or, where `on_trades`,
    trades made worse by the fraction `away`.
    """

    ts_trade: np.ndarray
    price: np.ndarray
    ts_fill: np.ndarray
    ask: np.ndarray
    bid: np.ndarray
    away: float
    on_trades: bool
    until: int


class Taker(ExecutionSpec):
    kind: Literal["taker"]
    assumed_half_spread_bps: float = Field(
        ge=0,
        le=100,
        description="what a fill pays away from the trade price where there are no quotes, bps",
    )

    def simulate(
        self, sides_T: np.ndarray, ticks: Ticks, bars: pl.DataFrame, exits: Exits, *, until: int
    ) -> pl.DataFrame:
        """Fills at the first quote at or after each act, or at the first trade where there are no
        quotes; `_walk` has the rules.
        """
        market = self._market(ticks, until)
        view = _Bars(
            ts=bars["ts"].to_numpy(),
            high=bars["high"].to_numpy(),
            low=bars["low"].to_numpy(),
            # All trades: bounds count the trades of every bar, which a cut before `until` would not
            # hold. `_walk` reads none behind the cut.
            bounds=trade_bounds(ticks.trades["ts_recv"].to_numpy(), bars),
            take_profit=exits.take_profit,
            stop_loss=exits.stop_loss,
        )
        latency_ns = round(self.latency_ms * NS_PER_MS)
        t, entry, exit_, reason = _walk(sides_T, view, market, exits.horizon, latency_ns)
        side, taken = sides_T[t], np.zeros(len(t), bool)
        paid = np.where(side > 0, market.ask[entry], market.bid[entry])
        got = np.where(side > 0, market.bid[exit_], market.ask[exit_])
        fills = {
            "bar": bars["bar"].to_numpy()[t],
            "side": side,
            "ts_entry": market.ts_fill[entry],
            "price_entry": paid * (1 + side * market.away),
            "maker_entry": taken,
            "ts_exit": market.ts_fill[exit_],
            "price_exit": got * (1 - side * market.away),
            "maker_exit": taken,
            "reason": np.array(REASONS)[reason],
        }
        # Behind the data the last quote would stand still, and so would every markout.
        return make_ledger(fills, ticks.quotes, until=min(until, ticks.end))

    def assumptions(self, ticks: Ticks) -> tuple[str, ...]:
        whole = "every order fills whole at the best price: no market impact"
        if len(ticks.quotes):
            return (whole,)
        half = f"{self.assumed_half_spread_bps:g} bps"
        return (f"no quotes: half a spread of {half} is assumed around the trade price", whole)

    def _market(self, ticks: Ticks, until: int) -> _Market:
        """The streams as arrays, cut before `until`; without quotes, fills meet the trades."""
        trades, quotes = (
            f[: f["ts_recv"].search_sorted(until)] for f in (ticks.trades, ticks.quotes)
        )
        # The whole data decide, not the cut: before the first quote orders wait for it.
        on_trades = not len(ticks.quotes)
        met, ask, bid = (trades, "price", "price") if on_trades else (quotes, "ask", "bid")
        return _Market(
            ts_trade=trades["ts_recv"].to_numpy(),
            price=trades["price"].to_numpy(),
            ts_fill=met["ts_recv"].to_numpy(),
            ask=met[ask].to_numpy(),
            bid=met[bid].to_numpy(),
            away=self.assumed_half_spread_bps / 1e4 if on_trades else 0.0,
            on_trades=on_trades,
            until=until,
        )


@kernel
def _walk(
    side_T: np.ndarray, bars: _Bars, market: _Market, horizon: int, latency: int
) -> np.ndarray:
    """int64[4, positions]: bar, entry fill, exit fill and reason of each, as indices.

    Every fill comes later in the stream than what caused it; trades come before quotes of the same
    time. A bar without known distances opens nothing, and the next decision is the first bar that
    closes after the exit fill.
    """
    found = np.empty((4, np.count_nonzero(side_T)), np.int64)
    n, t = 0, 0
    while t < len(side_T):
        if side_T[t] == 0 or np.isnan(bars.take_profit[t]) or np.isnan(bars.stop_loss[t]):
            t += 1
            continue
        # The print that closed the bar may tie with others: bounds[t + 1] is the first behind it.
        entry = _fill_at(market, bars.ts[t] + latency, bars.bounds[t + 1])
        # Later decisions find no market either.
        if entry >= len(market.ts_fill):
            break
        exit_, reason = _leave(bars, market, t, side_T[t], entry, horizon, latency)
        found[0, n], found[1, n], found[2, n], found[3, n] = t, entry, exit_, reason
        n += 1
        # side="right": a bar that closes at the time of the exit was decided before it
        # (docs/definitions.md 5.15).
        t = max(t + 1, np.searchsorted(bars.ts, market.ts_fill[exit_], side="right"))
    return found[:, :n]


@kernel
def _leave(
    bars: _Bars, market: _Market, t: int, side: int, entry: int, horizon: int, latency: int
) -> tuple[int, int]:
    """(exit fill, reason). A touch within the bar of expiry goes before the expiry; a position
    filled after that bar expires at once.
    """
    ts_entry = market.ts_fill[entry]
    # Barriers lie around the fill, not around the labels' mid: the position pays the spread.
    paid = (market.ask[entry] if side > 0 else market.bid[entry]) * (1 + side * market.away)
    upper = paid * (1 + (bars.take_profit[t] if side > 0 else bars.stop_loss[t]))
    lower = paid * (1 - (bars.stop_loss[t] if side > 0 else bars.take_profit[t]))
    # A close at or after `until` is not known, so nothing expires by it.
    due = t + horizon
    expires = due < len(bars.ts) and bars.ts[due] < market.until
    # The print that filled the entry cannot touch. Prints of a quote's own time come before it in
    # the stream (docs/definitions.md 5.1).
    first = entry + 1
    if not market.on_trades:
        first = np.searchsorted(market.ts_trade, ts_entry, side="right")
    stop = max(first, bars.bounds[due + 1] if expires else len(market.ts_trade))
    touch, touched = first_touch(
        market.price, bars.high, bars.low, bars.bounds, first, stop, upper, lower
    )
    last = len(market.ts_fill) - 1
    if touched != 0:
        cause, after = market.ts_trade[touch], touch + 1
        reason = TAKE_PROFIT if touched == side else STOP_LOSS
    elif expires:
        cause, after, reason = max(bars.ts[due], ts_entry), stop, TIME
    else:
        # The last state, without latency: nothing follows it in which to fill.
        return last, END
    # An exit meets a later state than its entry, even where both acts fall before one quote.
    exit_ = max(entry + 1, _fill_at(market, cause + latency, after))
    return (exit_, reason) if exit_ <= last else (last, END)


@kernel
def _fill_at(market: _Market, when: int, after: int) -> int:
    """The first fill at or after `when`; where trades fill, not before trade `after`."""
    at = int(np.searchsorted(market.ts_fill, when))
    return max(at, after) if market.on_trades else at
