"""What the adaptive kinds share: thresholds from the hours before (docs/definitions.md 5.6).

The threshold of a bar is the mean hourly total of the last `history_hours` hours with trades before
the hour in which it opens, over 3600, times the target seconds. Only hours with trades count, so
that there is a threshold after the burn-in however long the market was down.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from hft.clock import NS_PER_HOUR
from hft.market.bars import HOURS_PER_DAY, BarSpec, Day, hourly_totals
from hft.market.ticks import Ticks


class AdaptiveBars(BarSpec):
    unit: ClassVar[str] = "hours with trades"

    size: float = Field(
        gt=0, le=86_400, description="seconds that a bar is meant to last, at the past activity"
    )
    history_hours: int = Field(
        ge=1, le=24 * 365, description="hours with trades before a bar's hour that set its size"
    )

    @property
    def hours_back(self) -> int:
        return self.history_hours

    def thresholds(self, day: Day) -> np.ndarray:
        """One per hour of the day; nan while the history is too short."""
        hours, totals = day.totals["hour"].to_numpy(), day.totals[self.measure].to_numpy()
        # Hours strictly before the one in which a bar opens, because that one is still running.
        stops = np.searchsorted(hours, day.start + NS_PER_HOUR * np.arange(HOURS_PER_DAY))
        return np.array([self._threshold(totals[:stop]) for stop in stops])

    def _threshold(self, before: np.ndarray) -> float:
        if len(before) < self.history_hours:
            return np.nan
        # From a total per hour to one per second, times the seconds that a bar is meant to last.
        return before[-self.history_hours :].mean() / 3600 * self.size

    def available(self, ticks: Ticks) -> float:
        # In hours, because no bar opens before history_hours of them have had trades.
        return hourly_totals(ticks).height

    def shortage(self, available: float) -> str:
        return (
            f"bars.size={self.size:g} seconds after bars.history_hours={self.history_hours} gives "
            f"no bar: the data hold {int(available)} hours with trades; lower bars.history_hours "
            "or bars.size, or load more days"
        )
