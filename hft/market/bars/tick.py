"""Bars of an equal number of trades."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hft.market.bars import BarSpec, Day
from hft.market.ticks import Ticks


class TickBars(BarSpec):
    unit: ClassVar[str] = "trades"

    kind: Literal["tick"]
    size: int = Field(ge=1, description="trades per bar")

    def stops(self, day: Day) -> np.ndarray:
        n_trades = len(day.ts_recv)
        # Stops, not a threshold: a count is exact, and needs neither a sum nor slack.
        return np.append(np.arange(self.size, n_trades, self.size), n_trades)

    def is_closed(self, day: Day, last: dict[str, Any]) -> bool:
        return last["n_trades"] == self.size

    def available(self, ticks: Ticks) -> float:
        return ticks.trades.height

    def shortage(self, available: float) -> str:
        suggested = max(1, int(available) // 100)
        return (
            f"bars.size={self.size} trades gives no bar: the data hold {int(available)} trades "
            f"in all; try bars.size={suggested}"
        )
