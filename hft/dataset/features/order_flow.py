"""Order flow: who added to the queues and who took from them, and how the best quotes lean. Without
unit, or in bps.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import polars as pl

from hft.dataset.features import BPS, FeatureSpec, Windowed, within_segments
from hft.dataset.features._quotes import flow_per_bar
from hft.market.ticks import Ticks

# The quotes in BARS are the day's last ones strictly before the close. Empty queues give 0 / 0,
# which is stored as null.
MID = (pl.col("bid") + pl.col("ask")) / 2
IMBALANCE = (pl.col("bid_qty") - pl.col("ask_qty")) / (pl.col("bid_qty") + pl.col("ask_qty"))


class OrderFlowImbalance(Windowed):
    """OFI of the best quotes (Cont, Kukanov and Stoikov 2014) summed over the window, in units of
    the window's mean depth.

    The first quote of a day adds no flow. Null while a bar of the window has no quote of its day.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"quotes"})

    kind: Literal["ofi"]

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        flow, depth = flow_per_bar(ticks.quotes, ("bid", "bid_qty", "ask", "ask_qty"), bars)
        return {"ofi": flow, "ofi_depth": depth}

    def column(self, frame: pl.DataFrame) -> pl.Series:
        flow = pl.col("ofi").rolling_sum(self.window, min_samples=self.window)
        depth = pl.col("ofi_depth").rolling_mean(self.window, min_samples=self.window)
        # Over depth the value has no unit: quantities 1,000 times as large give the same feature.
        return within_segments(frame, flow / depth)


class TradeImbalance(Windowed):
    """(buy - sell) / volume over the window, in [-1, 1]. Volume of unknown side counts in the
    denominator alone.
    """

    kind: Literal["trade_imbalance"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        # A ratio of sums, not a mean of ratios: a bar with little volume weighs little.
        signed = (pl.col("buy_volume") - pl.col("sell_volume")).rolling_sum(
            self.window, min_samples=self.window
        )
        volume = pl.col("volume").rolling_sum(self.window, min_samples=self.window)
        return within_segments(frame, signed / volume)


class QueueImbalance(FeatureSpec):
    """(Qb - Qa) / (Qb + Qa) of the best quotes at the close, in [-1, 1]."""

    needs: ClassVar[frozenset[str]] = frozenset({"quotes"})

    kind: Literal["queue_imbalance"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return frame.select(IMBALANCE).to_series()


class WeightedMidDeviation(FeatureSpec):
    """The weighted mid I a + (1 - I) b, I = Qb / (Qb + Qa), less the mid, in bps: half the spread
    times the queue imbalance.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"quotes"})

    kind: Literal["weighted_mid_deviation"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        half_spread = (pl.col("ask") - pl.col("bid")) / 2
        # I a + (1 - I) b less the mid (a + b) / 2 is (a - b) (2 I - 1) / 2, and 2 I - 1 is the
        # imbalance.
        return frame.select(half_spread * IMBALANCE / MID * BPS).to_series()


class RelativeSpread(FeatureSpec):
    """Quoted spread over the mid at the close, in bps; negative where a source keeps crossed
    quotes.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"quotes"})

    kind: Literal["relative_spread"]

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return frame.select((pl.col("ask") - pl.col("bid")) / MID * BPS).to_series()
