"""Bars of equal turnover over a few hours: the threshold follows the activity of the hours
before.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.market.bars._adaptive import AdaptiveBars


class DollarAdaptiveBars(AdaptiveBars):
    measure: ClassVar[str] = "turnover"

    kind: Literal["dollar_adaptive"]
