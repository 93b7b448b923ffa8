"""Liquidity: what trading costs and how far it moves the price."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.features import BPS, ReturnWindowed, Windowed, log_return_bps, within_segments
from hft.dataset.features._quotes import day_begins
from hft.dataset.features._rolling import rolling_lag_covariance, rolling_slope
from hft.market.bars import trade_bounds
from hft.market.ticks import Ticks
from hft.system.kernels import kernel

MILLION = 1e6


class KyleLambda(ReturnWindowed):
    """Least-squares slope, with an intercept, of the price moves of the window's bars on their
    signed volume.

    In bps (with `response: price`, quote currency) per unit of base currency. Null where signed
    volume does not vary.
    """

    kind: Literal["kyle_lambda"]
    window: int = Field(ge=3, le=100_000, description="returns in the regression, in bars")
    response: Literal["log_return", "price"] = Field(
        description="what is regressed: log returns in bps, or price changes"
    )

    def column(self, frame: pl.DataFrame) -> pl.Series:
        move = log_return_bps() if self.response == "log_return" else pl.col("close").diff()
        moves = within_segments(frame, move).to_numpy()
        # Volume of unknown side is in neither sum: it has no sign to regress on
        # (docs/definitions.md 5.3).
        signed_volume = (frame["buy_volume"] - frame["sell_volume"]).to_numpy()
        # The first move of a segment is nan, and so is every window that reaches back over it.
        return pl.Series(rolling_slope(moves, signed_volume, self.window))


class Amihud(ReturnWindowed):
    """Mean of |log return| over turnover (Amihud 2002): bps per million of quote currency."""

    kind: Literal["amihud"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        illiquidity = log_return_bps().abs() / (pl.col("turnover") / MILLION)
        return within_segments(
            frame, illiquidity.rolling_mean(self.window, min_samples=self.window)
        )


class RollSpread(ReturnWindowed):
    """2 sqrt(max(0, -cov(r_t, r_t-1))) (Roll 1984), r being log returns in bps; n returns give n -
    1 pairs, ddof 1.
    """

    kind: Literal["roll_spread"]
    window: int = Field(ge=3, le=100_000, description="returns in the covariance, in bars")

    def column(self, frame: pl.DataFrame) -> pl.Series:
        returns = within_segments(frame, log_return_bps()).to_numpy()
        # Neighbouring returns that covary upwards have no root: they count as no spread. np.maximum
        # keeps nan.
        return pl.Series(2 * np.sqrt(np.maximum(0, -rolling_lag_covariance(returns, self.window))))


class EffectiveSpread(Windowed):
    """2 side (price - mid) / mid in bps, the mean of a bar's trades weighted by quantity, averaged
    over the window's bars.

    The mid is that of the day's last quote strictly before the trade. Trades without a side or
    before the first quote are left out; null while a bar of the window has no other trade.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"quotes"})

    kind: Literal["effective_spread"]

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        ts_recv, price, qty, side = (
            ticks.trades[name].to_numpy() for name in ("ts_recv", "price", "qty", "side")
        )
        ts_quote = ticks.quotes["ts_recv"].to_numpy()
        mid = ((ticks.quotes["bid"] + ticks.quotes["ask"]) / 2).to_numpy()
        # The day's own quotes alone: the day before may not be loaded.
        begins = day_begins(ts_quote, bars)
        return {
            "effective_spread": _effective_spread(
                ts_recv, price, qty, side, trade_bounds(ts_recv, bars), ts_quote, mid, begins
            )
        }

    def column(self, frame: pl.DataFrame) -> pl.Series:
        spread = pl.col("effective_spread").rolling_mean(self.window, min_samples=self.window)
        return within_segments(frame, spread)


@kernel
def _effective_spread(
    ts_recv: np.ndarray,
    price: np.ndarray,
    qty: np.ndarray,
    side: np.ndarray,
    bounds: np.ndarray,
    ts_quote: np.ndarray,
    mid: np.ndarray,
    day_begins: np.ndarray,
) -> np.ndarray:
    spread = np.full(len(bounds) - 1, np.nan)
    # Moves forward only, because trades and quotes ascend: one pass serves all bars.
    known = 0
    for bar in range(len(bounds) - 1):
        weighted = volume = 0.0
        for i in range(bounds[bar], bounds[bar + 1]):
            # Strictly before: a print often precedes its own book update by a millisecond.
            while known < len(ts_quote) and ts_quote[known] < ts_recv[i]:
                known += 1
            if known > day_begins[bar] and side[i] != 0:
                weighted += (
                    qty[i] * 2 * side[i] * (price[i] - mid[known - 1]) / mid[known - 1] * BPS
                )
                volume += qty[i]
        if volume > 0:
            spread[bar] = weighted / volume
    return spread
