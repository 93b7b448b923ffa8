"""A local-level Kalman filter on the log close in bps: the close shows a level that moves, through
noise (docs/definitions.md 5.10, 5.18).

With level variance q and noise variance r per bar, returns have variance q + 2r and neighbouring
returns covary by -r. Both moments are exponentially weighted means over past returns. So r and q
follow the market, and are known before the close that they judge; nothing is smoothed backwards.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.features import BPS, FeatureSpec, log_return_bps, within_segments
from hft.system.kernels import kernel

# What a segment's first values may still weigh when the warm-up is over.
START_WEIGHT = 0.01


class LocalLevel(FeatureSpec):
    span: int = Field(
        ge=2, le=100_000, description="span in bars of the exponential weights of the noise moments"
    )
    min_share: float = Field(
        ge=0.001,
        le=0.5,
        description="least share of the return variance left to the noise, and to the level",
    )

    @property
    def warmup(self) -> int:
        """Bars until the first return weighs under 1 % in the moments, and then until the first
        close weighs under 1 % in the level.
        """
        # The slowest gain is the steady state of the smallest q / r, K^2 = (1 - K) q / r. That
        # ratio is smallest where the noise has its largest share of the variance, 1 - min_share.
        ratio = 2 * self.min_share / (1 - self.min_share)
        slowest_gain = (math.sqrt(ratio**2 + 4 * ratio) - ratio) / 2
        # The first moment is known before bar 2: it is of the return into bar 1.
        return 2 + _bars_to_forget(2 / (self.span + 1)) + _bars_to_forget(slowest_gain)

    def filtered(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Per bar: deviation (close less filtered level, bps) and innovation (surprise over its
        predicted sd).
        """
        log_price = (frame["close"].log() * BPS).to_numpy()
        noise, drift = self.variances(frame)
        deviation, innovation = local_level(log_price, noise, drift)
        # The recursion has values from a segment's fourth bar on, but they hang on its start.
        warm = pl.int_range(pl.len()).over("segment") >= self.warmup
        columns = pl.DataFrame(
            {"deviation": deviation, "innovation": innovation, "segment": frame["segment"]}
        )
        return columns.select(pl.when(warm).then(pl.col("deviation", "innovation")))

    def variances(self, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """r and q of each bar from the returns before it; nan where there is none, as at the start
        of a segment.
        """
        returns = log_return_bps()
        alpha = 2 / (self.span + 1)
        # Raw second moments: the model's level has no drift, so its returns have mean zero.
        # shift(1): the moments of a bar are known before its close.
        past_variance = (returns**2).ewm_mean(alpha=alpha).shift(1)
        past_covariance = (returns * returns.shift(1)).ewm_mean(alpha=alpha).shift(1)
        variance = within_segments(frame, past_variance)
        # The first return has no neighbour; covariance 0 leaves the noise its least share.
        covariance = within_segments(frame, past_covariance).fill_null(0)
        # The noise's share of the variance is 2r / (q + 2r). A sample may put it outside [0, 1],
        # and at either end the filter would stop filtering or stop moving.
        # fill_nan: 0 / 0 until the price has moved.
        share = (-2 * covariance / variance).fill_nan(0).clip(self.min_share, 1 - self.min_share)
        return (variance * share / 2).to_numpy(), (variance * (1 - share)).to_numpy()


class KalmanDeviation(LocalLevel):
    """Log close less the filtered level, bps."""

    kind: Literal["kalman_deviation"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return self.filtered(frame)["deviation"]


class KalmanInnovation(LocalLevel):
    """Standardised innovation (y - a) / sqrt(P + r): how surprising the close was. Null until the
    price has moved.
    """

    kind: Literal["kalman_innovation"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return self.filtered(frame)["innovation"]


def _bars_to_forget(rate: float) -> int:
    return math.ceil(math.log(START_WEIGHT) / math.log(1 - rate)) if rate < 1 else 1


@kernel
def local_level(
    y: np.ndarray, noise: np.ndarray, drift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """y - a after each update, and (y - a) / sqrt(F) before it.

    P += q; v = y - a; F = P + r; K = P / F; a += K v; P = P (1 - K), with the r and q of the bar.
    Starts with a = y and P = r at the first bar whose variances are known, and again after each nan
    (a new segment); nan there.
    """
    deviation, innovation = np.full(len(y), np.nan), np.full(len(y), np.nan)
    started = False
    level = variance = 0.0
    for t in range(len(y)):
        if np.isnan(noise[t]):
            started = False
            continue
        if not started:
            # docs/definitions.md 5.18. The deviation would be 0 by construction, so none is given.
            started = True
            level, variance = y[t], noise[t]
            continue
        # In the docstring's letters: surprise is v, predicted P + q, total F, gain K.
        surprise = y[t] - level
        predicted = variance + drift[t]
        total = predicted + noise[t]
        if total > 0:  # else the price has never moved, and nothing is a surprise
            gain = predicted / total
            innovation[t] = surprise / np.sqrt(total)
        else:
            # No noise is known either, so the level is the price.
            gain = 1.0
        level += gain * surprise
        variance = predicted * (1 - gain)
        deviation[t] = y[t] - level
    return deviation, innovation
