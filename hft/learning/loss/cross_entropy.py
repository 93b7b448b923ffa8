"""-alpha_c log p of the true class."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import nn

from hft.learning.loss._weighted import FocalLoss, WeightedLossSpec


class CrossEntropy(WeightedLossSpec):
    kind: Literal["cross_entropy"]

    def build(self, class_counts: np.ndarray) -> nn.Module:
        return FocalLoss(0.0, self.weights(class_counts), self.label_smoothing)
