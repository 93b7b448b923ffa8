"""Scales each feature to zero mean and unit deviation, and clips it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from hft.dataset.transforms import TransformSpec

# float32 resolves 6e-8 of a column's level: a deviation below this share of the mean is rounding.
SMALLEST_RELATIVE_DEVIATION = 1e-6


class Standardize(TransformSpec):
    """(x - mean) / deviation (ddof 0, float64 sums). A column without variation, or without a
    finite value, becomes 0.
    """

    kind: Literal["standardize"]
    clip: float = Field(
        gt=0, le=1e6, description="largest absolute value after scaling, in standard deviations"
    )

    def build(self, n_features: int) -> nn.Module:
        return Scale(torch.zeros(n_features), torch.ones(n_features), self.clip)

    def fit(self, x_NF: np.ndarray) -> nn.Module:
        # A sum of a million float32 values loses digits that a price feature needs.
        x_NF = np.asarray(x_NF, np.float64)
        known_NF = np.isfinite(x_NF)
        n_F = np.maximum(known_NF.sum(axis=0), 1)
        mean_F = np.where(known_NF, x_NF, 0).sum(axis=0) / n_F
        deviation_F = np.sqrt((np.where(known_NF, x_NF - mean_F, 0) ** 2).sum(axis=0) / n_F)
        varies_F = deviation_F > SMALLEST_RELATIVE_DEVIATION * np.abs(mean_F)
        # A factor of 0, in place of a division, makes a column without variation 0 for any later
        # value.
        factor_F = np.divide(1.0, deviation_F, out=np.zeros_like(mean_F), where=varies_F)
        return Scale(torch.tensor(mean_F).float(), torch.tensor(factor_F).float(), self.clip)


class Scale(nn.Module):
    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, mean_F: torch.Tensor, factor_F: torch.Tensor, clip: float) -> None:
        super().__init__()
        # Buffers are stored with the weights and moved with them, and no optimiser changes them.
        self.register_buffer("mean", mean_F)
        self.register_buffer("factor", factor_F)
        self.clip = clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # clamp keeps NaN: what is unknown stays unknown.
        return ((x - self.mean) * self.factor).clamp(-self.clip, self.clip)
