"""Temporal convolutional network (Bai et al. 2018): residual blocks of two dilated causal
convolutions.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from hft.learning.model._tcn_spec import TcnSpec


class Tcn(TcnSpec):
    # 0 leaves the gates out of `_tcn.Network`. No fields, so that no YAML can set what is ignored.
    se_window: ClassVar[int] = 0
    se_reduction: ClassVar[int] = 0

    kind: Literal["tcn"]
