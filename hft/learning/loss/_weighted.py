"""What `focal` and `cross_entropy` share: class weights of the training rows, and a row's loss.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from torch import nn

from hft.learning.loss import LossSpec
from hft.schema import CLASS_NAMES

Weight = Annotated[float, Field(gt=0, le=1e6)]


class WeightedLossSpec(LossSpec):
    """`balanced` weighs a class by 1 / its effective number of rows (1 - beta^n) / (1 - beta) (Cui
    et al. 2019), mean 1 over the training rows: beta 1 is the inverse frequency, beta 0 no
    weighting; a class without rows weighs 1.
    """

    alpha: Literal["none", "balanced"] | tuple[Weight, Weight, Weight] = Field(
        description="class weights: none, balanced, or three positive numbers for hold, buy, sell",
        json_schema_extra={"before": "none"},
    )
    beta: float = Field(
        ge=0,
        le=1,
        description="of balanced: 1 - 1 / the rows after which a class counts as well known; 1 is "
        "inverse frequency",
        json_schema_extra={"before": 1.0},
    )
    label_smoothing: float = Field(
        ge=0,
        le=0.9,
        description="share of each label spread evenly over all classes",
        json_schema_extra={"before": 0.0},
    )

    @field_validator("alpha", mode="wrap")
    @classmethod
    def _one_message(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            # YAML has lists, and pydantic's strict check takes no list for a tuple.
            return check(tuple(value) if isinstance(value, list) else value)
        except ValidationError:  # one line per member of the union, under names that no user wrote
            choices = f"none, balanced or three numbers > 0 for {', '.join(CLASS_NAMES)}"
            raise ValueError(f"must be {choices}, got {value!r}") from None

    @model_validator(mode="after")
    def _beta_is_used(self) -> WeightedLossSpec:
        # Any other beta would be ignored without a word; 1 is what the shipped YAML holds.
        if self.beta != 1 and self.alpha != "balanced":
            raise ValueError(
                f"beta must be 1 unless alpha is balanced, got beta={self.beta} with "
                f"alpha={self.alpha}"
            )
        return self

    def weights(self, count_C: np.ndarray) -> np.ndarray:
        if self.alpha == "none":
            return np.ones(len(CLASS_NAMES))
        if self.alpha != "balanced":
            return np.array(self.alpha)
        count_C = np.asarray(count_C, np.float64)
        weight_C, present_C = np.ones_like(count_C), count_C > 0
        weight_C[present_C] = 1 / _effective_number(count_C[present_C], self.beta)
        # Mean 1 over the rows: the loss keeps its scale, and lr and clip_norm their meaning.
        mean = (weight_C @ count_C) / max(count_C.sum(), 1)
        return np.where(present_C, weight_C / (mean or 1), 1.0)


def _effective_number(count_C: np.ndarray, beta: float) -> np.ndarray:
    # The limits of the formula, where it reads 0 / 0 or log 0.
    if beta in (0, 1):
        return count_C if beta else np.ones_like(count_C)
    # (1 - beta^n) / (1 - beta), Cui et al. (2019). expm1, because 1 - beta^n loses its digits as
    # beta nears 1.
    return np.expm1(count_C * np.log(beta)) / (beta - 1)


class FocalLoss(nn.Module):
    """alpha_y times the mean of -(1 - p_c)^gamma log p_c under the smoothed label, p the unweighted
    probabilities.
    """

    alpha_C: torch.Tensor

    def __init__(self, gamma: float, alpha_C: np.ndarray, label_smoothing: float) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("alpha_C", torch.from_numpy(alpha_C).float())

    def forward(self, logits_NC: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
        log_p_NC = logits_NC.log_softmax(-1)
        cost_N = self._cost(log_p_NC.gather(-1, y_N[:, None]).squeeze(-1))
        if self.label_smoothing:
            # The smoothed label is applied before alpha: torch's cross_entropy would weigh its
            # other classes by their own alpha, which moves what p means.
            cost_N = torch.lerp(cost_N, self._cost(log_p_NC).mean(-1), self.label_smoothing)
        # Outside of p_t: inside the cross entropy alpha would distort it (docs/definitions.md 1).
        return self.alpha_C[y_N] * cost_N

    def _cost(self, log_p: torch.Tensor) -> torch.Tensor:
        if not self.gamma:
            return -log_p
        # expm1, because 1 - p loses its digits as p nears 1.
        # The floor keeps the gradient of (1 - p)^gamma finite for gamma < 1 once p rounds to 1.
        return -((-torch.expm1(log_p)).clamp_min(1e-30) ** self.gamma) * log_p
