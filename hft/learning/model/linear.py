"""Multinomial logistic regression on the last `window` bars: one causal convolution."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from hft.learning.model import CausalNetwork, ModelSpec
from hft.learning.model._tcn import CausalConv
from hft.schema import CLASS_NAMES


class Linear(ModelSpec):
    kind: Literal["linear"]
    window: int = Field(
        ge=1, le=4096, description="bars that one prediction sees, the current one the last"
    )

    @property
    def receptive_field(self) -> int:
        return self.window

    def build(self, n_features: int) -> CausalNetwork:
        return Network(n_features, self.window)


class Network(CausalNetwork):
    def __init__(self, n_features: int, window: int) -> None:
        super().__init__()
        self.receptive_field = window
        self.conv = CausalConv(n_features, len(CLASS_NAMES), window)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        logits_BTC: torch.Tensor = self.conv(x_BTF)
        return logits_BTC
