"""Focal loss (Lin et al. 2017): -alpha_c (1 - p_t)^gamma log p_t, p_t the unweighted probability of
the true class.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from hft.learning.loss._weighted import FocalLoss, WeightedLossSpec


class Focal(WeightedLossSpec):
    kind: Literal["focal"]
    gamma: float = Field(ge=0, le=10, description="focusing exponent; 0 is cross entropy")

    def build(self, class_counts: np.ndarray) -> nn.Module:
        return FocalLoss(self.gamma, self.weights(class_counts), self.label_smoothing)
