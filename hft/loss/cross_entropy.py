"""-log p of the true class."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import nn

from hft.loss import LossSpec


class CrossEntropy(LossSpec):
    kind: Literal["cross_entropy"]

    def build(self, class_counts: np.ndarray) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none")
