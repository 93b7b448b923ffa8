"""Focal loss (Lin et al. 2017): -alpha_c (1 - p_t)^gamma log p_t, p_t the unweighted probability of the true class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError, field_validator
from torch import nn

from hft.loss import LossSpec
from hft.schema import CLASS_NAMES

Weight = Annotated[float, Field(gt=0, le=1e6)]


class Focal(LossSpec):
    """`balanced` is n / (classes present * n_c) on the training rows, mean 1 over them; an absent class weighs 1."""

    kind: Literal["focal"]
    gamma: float = Field(ge=0, le=10, description="focusing exponent; 0 is cross entropy")
    alpha: Literal["none", "balanced"] | tuple[Weight, Weight, Weight] = Field(
        description="class weights: none, balanced, or three positive numbers for hold, buy, sell"
    )

    @field_validator("alpha", mode="wrap")
    @classmethod
    def _one_message(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(tuple(value) if isinstance(value, list) else value)
        except ValidationError:  # one line per member of the union, under names that no user wrote
            choices = f"none, balanced or three numbers > 0 for {', '.join(CLASS_NAMES)}"
            raise ValueError(f"must be {choices}, got {value!r}") from None

    def build(self, class_counts: np.ndarray) -> nn.Module:
        return FocalLoss(self.gamma, torch.tensor(self._weights(np.asarray(class_counts, np.float64))).float())

    def _weights(self, count_C: np.ndarray) -> np.ndarray:
        if self.alpha == "none":
            return np.ones(len(CLASS_NAMES))
        if self.alpha == "balanced":
            present_C = count_C > 0
            share_C = count_C / max(count_C.sum(), 1)
            return np.divide(1 / max(present_C.sum(), 1), share_C, out=np.ones_like(share_C), where=present_C)
        return np.array(self.alpha)


class FocalLoss(nn.Module):
    def __init__(self, gamma: float, alpha_C: torch.Tensor) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha_C", alpha_C)

    def forward(self, logits_NC: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
        log_p_N = logits_NC.log_softmax(-1).gather(-1, y_N[:, None]).squeeze(-1)
        # The floor keeps the gradient of (1 - p)^gamma finite for gamma < 1 once p rounds to 1.
        miss_N = (-torch.expm1(log_p_N)).clamp_min(1e-30)
        return -self.alpha_C[y_N] * miss_N**self.gamma * log_p_N
