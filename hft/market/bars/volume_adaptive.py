"""Bars of equal traded quantity, whose threshold follows the quantity of the hours before."""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.market.bars._adaptive import AdaptiveBars


class VolumeAdaptiveBars(AdaptiveBars):
    measure: ClassVar[str] = "volume"

    kind: Literal["volume_adaptive"]
