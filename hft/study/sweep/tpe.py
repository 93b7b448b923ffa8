"""Tree-structured Parzen estimator (Bergstra et al. 2011), with conditional parameters and parallel
workers.
"""

from __future__ import annotations

from typing import Literal

from hft.study.sweep._tpe import TpeSpec


class Tpe(TpeSpec):
    kind: Literal["tpe"]
