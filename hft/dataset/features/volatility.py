"""Returns and their size over the last bars, from closes or from ranges: in bps, not annualised."""

from __future__ import annotations

import math
from typing import Literal

import polars as pl

from hft.dataset.features import (
    BPS,
    FeatureSpec,
    ReturnWindowed,
    Windowed,
    log_return_bps,
    within_segments,
)

# Of one bar each: they reach across no gap, so no segment has to be looked at before a window.
RANGE = (pl.col("high") / pl.col("low")).log()
BODY = (pl.col("close") / pl.col("open")).log()


class LogReturn(ReturnWindowed):
    """Log return of the close over `window` bars."""

    kind: Literal["log_return"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return within_segments(frame, log_return_bps(bars=self.window))


class RealisedVolatility(ReturnWindowed):
    """Square root of the sum of the window's squared log returns."""

    kind: Literal["realised_volatility"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        total = (log_return_bps() ** 2).rolling_sum(self.window, min_samples=self.window)
        return within_segments(frame, _root(total))


class Parkinson(Windowed):
    """sqrt(mean(ln(H/L)^2) / (4 ln 2)) (Parkinson 1980), per bar."""

    kind: Literal["parkinson"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        # ln(H/L)^2 of a driftless continuous walk is 4 ln 2 sigma^2 in the mean. A walk in 1,000
        # steps falls short of its range by a few per cent, so that a true sigma is underestimated.
        mean = (RANGE**2).rolling_mean(self.window, min_samples=self.window)
        return within_segments(frame, _root(mean / (4 * math.log(2))) * BPS)


class GarmanKlass(Windowed):
    """sqrt(mean(ln(H/L)^2 / 2 - (2 ln 2 - 1) ln(C/O)^2)) (Garman and Klass 1980), per bar."""

    kind: Literal["garman_klass"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        variance = RANGE**2 / 2 - (2 * math.log(2) - 1) * BODY**2
        mean = variance.rolling_mean(self.window, min_samples=self.window)
        return within_segments(frame, _root(mean) * BPS)


class VwapDeviation(FeatureSpec):
    """(close - vwap) / vwap of the bar."""

    kind: Literal["vwap_deviation"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        # Both prices are of one bar, so no gap can lie between them.
        return frame.select((pl.col("close") - pl.col("vwap")) / pl.col("vwap") * BPS).to_series()


def _root(value: pl.Expr) -> pl.Expr:
    """The square root. Running sums of squares that should be zero may end below it, by
    rounding.
    """
    return value.clip(lower_bound=0).sqrt()
