"""Take a primary signal's trade or leave it: its side where that trade takes profit first, hold
where it does not.

The primary is a rule over bars, or a column of BARS or FEATURES. Bars where it is silent carry no
decision. Widths, floor and entry are the triple barrier's; t_end is the print that ends the
primary's trade, stop included.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.barriers import bar_of, touch_in_bars
from hft.dataset.labels import LabelError
from hft.dataset.labels._paths import read_paths, to_labels
from hft.dataset.labels.triple_barrier import TripleBarrier
from hft.market.ticks import Ticks
from hft.schema import BARS, BUY, HOLD, SELL
from hft.spec import Spec
from hft.system.kernels import kernel

RETURN = "return"


class Primary(Spec):
    signal: str = Field(
        min_length=1,
        description=f"{RETURN}: the log return of `window` bars, bps; else the name of a bar or feature column",
    )
    window: int = Field(
        ge=1, le=1_000_000, description="bars of the return, or of the column's mean (1: its value)"
    )
    threshold: float = Field(
        ge=0, description="size that the signal must exceed to have a side, in its own unit"
    )
    direction: Literal["follow", "fade"] = Field(
        description="follow: buy where the signal is positive; fade: sell there"
    )

    def sides(self, bars: pl.DataFrame) -> np.ndarray:
        """int8[T]: +1 to buy, -1 to sell, 0 where silent or unknown (window not full, gap in it,
        null).
        """
        if self.signal != RETURN and self.signal not in bars.columns:
            raise LabelError(
                f"labels.primary.signal: must be {RETURN!r} or a column of the bars or of `features`, got "
                f"{self.signal!r}; on offer: {', '.join(bars.columns)}"
            )
        value, segment = self._values(bars), bars["segment"].to_numpy()
        side = (value > self.threshold).astype(np.int8) - (value < -self.threshold)
        # A return of n bars has n + 1 closes, a mean of n bars n values: all must lie in one
        # segment.
        back = self.window if self.signal == RETURN else self.window - 1
        same = np.zeros(side.size, bool)
        same[back:] = segment[back:] == segment[: max(side.size - back, 0)]
        return np.where(same, side if self.direction == "follow" else -side, 0).astype(np.int8)

    def _values(self, bars: pl.DataFrame) -> np.ndarray:
        if self.signal == RETURN:
            log_close = bars["close"].log()
            return ((log_close - log_close.shift(self.window)) * 1e4).fill_null(np.nan).to_numpy()
        return _window_mean(
            bars[self.signal].cast(pl.Float64).fill_null(np.nan).to_numpy(), self.window
        )


class Meta(TripleBarrier):
    kind: Literal["meta"]
    primary: Primary

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.primary.signal in (RETURN, *BARS) else (self.primary.signal,)

    def offered(self, bars: pl.DataFrame) -> np.ndarray:
        out, side = super().offered(bars), self.primary.sides(bars)
        out[:, BUY] &= side > 0
        out[:, SELL] &= side < 0
        out[side == 0] = False
        return out

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        paths = read_paths(ticks, bars, horizon=self.horizon, latency_ms=self.latency_ms)
        exits, side = self.exits(bars), self.primary.sides(bars)
        y, at, touched = _own_trades(
            paths.price,
            bars["high"].to_numpy(),
            bars["low"].to_numpy(),
            paths.bounds,
            paths.entry,
            paths.first,
            paths.stop,
            paths.known & ~np.isnan(exits.take_profit),
            exits.take_profit,
            exits.stop_loss,
            exits.horizon,
            side,
        )
        t_end = np.where(touched, paths.ts_recv[at], paths.expires)
        return to_labels(bars, y, t_end, (paths.price[at] / paths.entry - 1) * 1e4)


@kernel
def _window_mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values, each window summed afresh; nan where it is not full or
    holds a nan.
    """
    out = np.full(x.size, np.nan)
    for end in range(window, x.size + 1):
        out[end - 1] = np.mean(x[end - window : end])
    return out


@kernel
def _own_trades(
    price, highs, lows, bounds, entry, first, stop, known, take_profit, stop_loss, horizon, sides
):
    """Per bar the class (-1: no decision, or not known), the print that ends its trade, and whether
    it is a touch.
    """
    n = entry.size
    y, at, touched = np.full(n, -1, np.int8), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    bar = 0
    for t in range(n):
        if not known[t] or sides[t] == 0:
            continue
        bar = bar_of(bounds, bar, first[t])
        up, down = (
            (take_profit[t], stop_loss[t]) if sides[t] > 0 else (stop_loss[t], take_profit[t])
        )
        end, side = touch_in_bars(
            price,
            highs,
            lows,
            bounds,
            bar,
            t + horizon,
            first[t],
            stop[t],
            entry[t] * (1 + up),
            entry[t] * (1 - down),
        )
        y[t] = HOLD if side != sides[t] else BUY if side == 1 else SELL
        touched[t] = side != 0
        at[t] = end if touched[t] else stop[t] - 1
    return y, at, touched
