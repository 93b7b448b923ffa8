"""Bars of equal turnover, whose threshold follows the turnover of the hours before."""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.market.bars._adaptive import AdaptiveBars


class DollarAdaptiveBars(AdaptiveBars):
    measure: ClassVar[str] = "turnover"

    kind: Literal["dollar_adaptive"]
