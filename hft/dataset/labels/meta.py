"""Whether to take the trade of a primary signal: the class is its side where that trade takes its
profit first, and hold where it does not.

The primary is a rule over bars, or a column of BARS or FEATURES. A bar where it is silent carries
no decision. Barriers and entry are those of the triple barrier; t_end is the print that ends the
primary's trade, be it at its stop.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.labels import LabelError
from hft.dataset.labels._barriers import BarrierSpec
from hft.schema import BARS, BUY, SELL
from hft.spec import Spec
from hft.system.kernels import kernel

RETURN = "return"


class Primary(Spec):
    signal: str = Field(
        min_length=1,
        description=f"{RETURN}: the log return of `window` bars, bps; "
        "else the name of a bar or feature column",
    )
    window: int = Field(
        ge=1, le=1_000_000, description="bars of the return, or of the column's mean (1: its value)"
    )
    threshold: float = Field(
        ge=0, description="size that the signal must exceed to have a side, in its own unit"
    )
    direction: Literal["follow", "fade"] = Field(
        description="follow: buy where the signal is positive; fade: sell there"
    )

    def sides(self, bars: pl.DataFrame) -> np.ndarray:
        """int8[T]: +1 to buy, -1 to sell, 0 where the signal is small or unknown (its window is not
        full or holds a gap, a value is null). LabelError when there is no such column.
        """
        if self.signal != RETURN and self.signal not in bars.columns:
            raise LabelError(
                f"labels.primary.signal: must be {RETURN!r} or a column of the bars or of "
                f"`features`, got {self.signal!r}; on offer: {', '.join(bars.columns)}"
            )
        value, segment = self._values(bars), bars["segment"].to_numpy()
        # nan compares false, so an unknown value has no side.
        side = (value > self.threshold).astype(np.int8) - (value < -self.threshold)
        # A return of n bars has n + 1 closes, a mean of n bars n values; all must lie in one
        # segment.
        back = self.window if self.signal == RETURN else self.window - 1
        same = np.zeros(side.size, bool)
        same[back:] = segment[back:] == segment[: max(side.size - back, 0)]
        return np.where(same, side if self.direction == "follow" else -side, 0).astype(np.int8)

    def _values(self, bars: pl.DataFrame) -> np.ndarray:
        if self.signal == RETURN:
            # Over the whole range: `sides` takes back what reaches across a gap.
            log_close = bars["close"].log()
            return ((log_close - log_close.shift(self.window)) * 1e4).fill_null(np.nan).to_numpy()
        return _window_mean(
            bars[self.signal].cast(pl.Float64).fill_null(np.nan).to_numpy(), self.window
        )


class Meta(BarrierSpec):
    kind: Literal["meta"]
    primary: Primary

    @property
    def columns(self) -> tuple[str, ...]:
        # A column of BARS is there already, and FEATURES would be asked for it in vain.
        return () if self.primary.signal in (RETURN, *BARS) else (self.primary.signal,)

    def offered(self, bars: pl.DataFrame) -> np.ndarray:
        out, side = super().offered(bars), self.sides(bars)
        out[:, BUY] &= side > 0
        out[:, SELL] &= side < 0
        # Hold goes as well: with no class on offer the bar carries no decision.
        out[side == 0] = False
        return out

    def sides(self, bars: pl.DataFrame) -> np.ndarray:
        return self.primary.sides(bars)


@kernel
def _window_mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values, each window summed afresh. nan where the window is not full
    or holds a nan.
    """
    out = np.full(x.size, np.nan)
    # In a running sum one nan would stay for ever, and so would the rounding of large values.
    for end in range(window, x.size + 1):
        out[end - 1] = np.mean(x[end - window : end])
    return out
