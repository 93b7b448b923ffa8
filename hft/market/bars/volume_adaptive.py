"""Bars of equal traded quantity over a few hours: the threshold follows the activity of the hours
before.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.market.bars._adaptive import AdaptiveBars


class VolumeAdaptiveBars(AdaptiveBars):
    measure: ClassVar[str] = "volume"

    kind: Literal["volume_adaptive"]
