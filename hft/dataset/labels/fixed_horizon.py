"""The side of the return from the entry to the close of bar t + horizon, beyond a threshold."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.barriers import Exits
from hft.dataset.labels import LabelSpec
from hft.dataset.labels._paths import read_paths, to_labels
from hft.market.ticks import Ticks
from hft.schema import BUY, HOLD, SELL


class FixedHorizon(LabelSpec):
    kind: Literal["fixed_horizon"]
    threshold_bps: float = Field(
        ge=0, le=10_000, description="return that must be exceeded for buy or sell, bps"
    )

    def exits(self, bars: pl.DataFrame) -> Exits:
        # inf: the trade has no barriers. nan would forbid it.
        never = np.full(bars.height, np.inf)
        return Exits(never, never, self.horizon)

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        paths = read_paths(ticks, bars, horizon=self.horizon, latency_ms=self.latency_ms)
        ret_bps = (paths.price[paths.stop - 1] / paths.entry - 1) * 1e4
        # Strictly: with >= and a threshold of 0 a price that did not move would be a sell.
        beyond = np.abs(ret_bps) > self.threshold_bps
        y = np.where(beyond, np.where(ret_bps > 0, BUY, SELL), HOLD)
        return to_labels(bars, np.where(paths.known, y, -1), paths.expires, ret_bps)
