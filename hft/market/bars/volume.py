"""Bars of equal traded quantity (AFML 2.3.1): the trade that reaches `size` closes the bar, its
excess is dropped.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hft.market.bars import HOURS_PER_DAY, BarSpec, Day
from hft.market.ticks import Ticks


class VolumeBars(BarSpec):
    unit: ClassVar[str] = "base currency"

    kind: Literal["volume"]
    size: float = Field(gt=0, description="traded quantity per bar in base currency")

    def thresholds(self, day: Day) -> np.ndarray:
        return np.full(HOURS_PER_DAY, self.size)

    def available(self, ticks: Ticks) -> float:
        return float(ticks.trades["qty"].sum())
