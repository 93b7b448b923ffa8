"""The class whose own trade takes its profit before its stop and before its expiry (QUANT
5.11-5.14).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from hft.dataset.barriers import Exits, bar_of, touch_in_bars
from hft.dataset.labels import LabelSpec
from hft.dataset.labels._paths import Paths, read_paths, to_labels
from hft.dataset.labels._volatility import ewma_volatility
from hft.market.ticks import Ticks
from hft.schema import BUY, HOLD, SELL
from hft.system.kernels import kernel


class TripleBarrier(LabelSpec):
    kind: Literal["triple_barrier"]
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
    def _width_is_used(self):
        # Any pair is within reach: width takes the value of one side, the other is set by name.
        if self.width not in (self.pt, self.sl):
            raise ValueError(
                f"width must be the value of pt or sl, else it is ignored, got width={self.width}, pt={self.pt}, "
                f"sl={self.sl}; set width={self.pt} and sl={self.sl} and leave pt at ${{.width}}"
            )
        return self

    def exits(self, bars: pl.DataFrame) -> Exits:
        sigma = ewma_volatility(bars["close"].to_numpy(), bars["segment"].to_numpy(), self.span)
        scale, floor = (
            sigma * np.sqrt(self.horizon),
            max(self.floor_bps, 2 * self.floor_fee_bps) * 1e-4,
        )
        scale[scale + floor == 0] = (
            np.nan
        )  # a price that never moved and no floor: no distance, hence no trade
        return Exits(
            np.maximum(self.pt * scale, floor), np.maximum(self.sl * scale, floor), self.horizon
        )

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        paths = read_paths(ticks, bars, horizon=self.horizon, latency_ms=self.latency_ms)
        exits = self.exits(bars)
        known = paths.known & ~np.isnan(exits.take_profit)
        return to_labels(bars, *_resolve(paths, bars, exits, known))


def _resolve(
    paths: Paths, bars: pl.DataFrame, exits: Exits, known: np.ndarray
) -> tuple[np.ndarray, ...]:
    y, at = _first_wins(
        paths.price,
        bars["high"].to_numpy(),
        bars["low"].to_numpy(),
        paths.bounds,
        paths.entry,
        paths.first,
        paths.stop,
        known,
        exits.take_profit,
        exits.stop_loss,
        exits.horizon,
    )
    t_end = np.where(y > HOLD, paths.ts_recv[at], paths.expires)
    return y, t_end, (paths.price[at] / paths.entry - 1) * 1e4


@kernel
def _first_wins(
    price, highs, lows, bounds, entry, first, stop, known, take_profit, stop_loss, horizon
):
    """Per bar the class (-1: not known) and the print that ends its trade: the touch, or the last
    before expiry.
    """
    n = entry.size
    y, at = np.full(n, -1, np.int8), np.zeros(n, np.int64)
    bar = 0
    for t in range(n):
        if not known[t]:
            continue
        bar = bar_of(
            bounds, bar, first[t]
        )  # an entry at a mid can follow, and precede, one that waited for a print
        p, tp, sl, last = entry[t], take_profit[t], stop_loss[t], t + horizon
        end, side = touch_in_bars(
            price, highs, lows, bounds, bar, last, first[t], stop[t], p * (1 + tp), p * (1 - sl)
        )
        if tp == sl:  # the short's barriers are the long's
            y[t] = BUY if side == 1 else SELL if side == -1 else HOLD
        else:
            y[t] = BUY if side == 1 else HOLD
            # Only a short that wins earlier matters once the long has won.
            limit = end if side == 1 else stop[t]
            short_end, short_side = touch_in_bars(
                price, highs, lows, bounds, bar, last, first[t], limit, p * (1 + sl), p * (1 - tp)
            )
            if short_side == -1:
                y[t], end = SELL, short_end
        at[t] = end if y[t] != HOLD else stop[t] - 1
    return y, at
