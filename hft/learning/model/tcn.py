"""Temporal convolutional network (Bai et al. 2018): residual blocks of two dilated causal
convolutions.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.learning.model._tcn_spec import TcnSpec


class Tcn(TcnSpec):
    se_window: ClassVar[int] = 0
    se_reduction: ClassVar[int] = 0

    kind: Literal["tcn"]
