"""What the kinds with barriers share: their distances, and how each bar's own trades end at them
(docs/definitions.md 5.11-5.14).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from hft.dataset.barriers import Exits, bar_of, touch_in_bars
from hft.dataset.labels import LabelSpec
from hft.dataset.labels._paths import read_paths, to_labels
from hft.dataset.labels._volatility import ewma_volatility
from hft.market.ticks import Ticks
from hft.schema import BUY, HOLD, SELL
from hft.system.kernels import kernel

EITHER = 2


class BarrierSpec(LabelSpec):
    width: float = Field(
        gt=0, le=100, description="barrier distance that pt and sl take, in sigma * sqrt(horizon)"
    )
    pt: float = Field(gt=0, le=100, description="take profit's distance, in sigma * sqrt(horizon)")
    sl: float = Field(gt=0, le=100, description="stop loss's distance, in sigma * sqrt(horizon)")
    floor_bps: float = Field(
        ge=0, le=10_000, description="least distance of either barrier, bps of the entry price"
    )
    floor_fee_bps: float = Field(
        ge=0,
        le=100,
        description="a fee one way, bps: no barrier lies nearer than the round trip, twice this; "
        "${fees.<schedule>.taker_bps} takes a schedule's, 0 takes none",
        json_schema_extra={"before": 0.0},
    )
    span: int = Field(ge=1, le=1_000_000, description="span of the volatility's EWMA, bars")

    @model_validator(mode="after")
    def _width_is_used(self) -> BarrierSpec:
        # Any pair is within reach: width takes the value of one side, the other is set by name.
        if self.width not in (self.pt, self.sl):
            raise ValueError(
                f"width must be the value of pt or sl, else it is ignored, got width={self.width}, "
                f"pt={self.pt}, sl={self.sl}; set width={self.pt} and sl={self.sl} and leave pt at "
                "${.width}"
            )
        return self

    def sides(self, bars: pl.DataFrame) -> np.ndarray:
        """int8[T]: the trade that each bar may open: +1 a long, -1 a short, EITHER, or 0 none."""
        return np.full(bars.height, EITHER, np.int8)

    def exits(self, bars: pl.DataFrame) -> Exits:
        sigma = ewma_volatility(bars["close"].to_numpy(), bars["segment"].to_numpy(), self.span)
        # Per horizon: with widths near one sigma per bar nothing would expire in 50 bars
        # (docs/definitions.md 1).
        scale = sigma * np.sqrt(self.horizon)
        floor = max(self.floor_bps, 2 * self.floor_fee_bps) * 1e-4
        # A price that never moved and no floor: no distance, hence no trade.
        scale[scale + floor == 0] = np.nan
        return Exits(
            np.maximum(self.pt * scale, floor), np.maximum(self.sl * scale, floor), self.horizon
        )

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        paths = read_paths(ticks, bars, horizon=self.horizon, latency_ms=self.latency_ms)
        exits = self.exits(bars)
        y, at, touched = _resolve(
            paths.price,
            bars["high"].to_numpy(),
            bars["low"].to_numpy(),
            paths.bounds,
            paths.entry,
            paths.first,
            paths.stop,
            # Prices compare false with an unknown distance, so the row would become a hold.
            paths.known & ~np.isnan(exits.take_profit),
            exits.take_profit,
            exits.stop_loss,
            exits.horizon,
            self.sides(bars),
        )
        t_end = np.where(touched, paths.ts_recv[at], paths.expires)
        return to_labels(bars, y, t_end, (paths.price[at] / paths.entry - 1) * 1e4)


@kernel
def _resolve(
    price: np.ndarray,
    highs: np.ndarray,
    lows: np.ndarray,
    bounds: np.ndarray,
    entry: np.ndarray,
    first: np.ndarray,
    stop: np.ndarray,
    known: np.ndarray,
    take_profit: np.ndarray,
    stop_loss: np.ndarray,
    horizon: int,
    sides: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per bar the class (-1: not known, or no trade), the print that ends the trade, and whether
    that is a touch; else it is the last print before expiry.

    With EITHER a touch is the take profit of the side that wins. With one side it is that side's
    take profit or its stop.
    """
    n = entry.size
    y, at, touched = np.full(n, -1, np.int8), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    bar = 0
    for t in range(n):
        if not known[t] or sides[t] == 0:
            continue
        # Bars are sought from the last answer, in both directions: an entry at a mid can precede
        # the entry before it, if that one waited for a print.
        bar = bar_of(bounds, bar, first[t])
        p, tp, sl, last = entry[t], take_profit[t], stop_loss[t], t + horizon
        # A short's barriers are the mirror of a long's (docs/definitions.md 5.12).
        up, down = (sl, tp) if sides[t] == -1 else (tp, sl)
        end, side = touch_in_bars(
            price, highs, lows, bounds, bar, last, first[t], stop[t], p * (1 + up), p * (1 - down)
        )
        if sides[t] != EITHER:
            # The question is whether to take this trade: its stop and its expiry both say no.
            y[t] = HOLD if side != sides[t] else BUY if side == 1 else SELL
            touched[t] = side != 0
        elif tp == sl:  # the short's barriers are the long's
            y[t] = BUY if side == 1 else SELL if side == -1 else HOLD
            touched[t] = side != 0
        else:
            # Both trades can win, if pt < sl; then the earlier counts (docs/definitions.md 5.13).
            y[t] = BUY if side == 1 else HOLD
            # Only a short that wins earlier matters once the long has won.
            limit = end if side == 1 else stop[t]
            short_end, short_side = touch_in_bars(
                price, highs, lows, bounds, bar, last, first[t], limit, p * (1 + sl), p * (1 - tp)
            )
            if short_side == -1:
                y[t], end = SELL, short_end
            touched[t] = y[t] != HOLD
        # A hold ends at the last print before the expiry (docs/definitions.md 5.14).
        at[t] = end if touched[t] else stop[t] - 1
    return y, at, touched
