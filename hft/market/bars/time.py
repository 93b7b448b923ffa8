"""Bars of equal clock time, aligned to UTC midnight; an interval without trades gives no bar."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hft.clock import NS_PER_S
from hft.market.bars import BarSpec, Day
from hft.market.bars._kernel import interval_stops
from hft.market.ticks import Ticks


class TimeBars(BarSpec):
    """ts_open and ts are the ends of the interval; a bar that midnight cuts short is partial."""

    unit: ClassVar[str] = "seconds"

    kind: Literal["time"]
    size: float = Field(
        ge=0.001, le=86_400, description="length of a bar in seconds, counted from UTC midnight"
    )

    def stops(self, day: Day) -> np.ndarray:
        return interval_stops(day.ts_recv, day.start, self._size_ns)

    def is_closed(self, day: Day, last: dict[str, Any]) -> bool:
        # Midnight cuts an interval that reaches past it, and one that reaches past the end of the
        # data may still get trades.
        return last["ts"] <= day.end

    def times(self, day: Day, ts_open: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # From midnight: the grid restarts with the day, also where the size does not divide it.
        begin = day.start + (ts_open - day.start) // self._size_ns * self._size_ns
        return begin, begin + self._size_ns

    def available(self, ticks: Ticks) -> float:
        return (ticks.end - ticks.start) / NS_PER_S

    @property
    def _size_ns(self) -> int:
        return round(self.size * NS_PER_S)
