"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), and a schedule of its rate."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field

from hft.learning.optim import OptimSpec

# Of torch's OneCycleLR: the first rate is lr / 25, the last one lr / 250,000.
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(OptimSpec):
    kind: Literal["adamw"]
    lr: float = Field(gt=0, le=10, description="largest step size")
    betas: tuple[Beta, Beta] = Field(
        description="decay per step of the running mean and the running square of the gradient",
        json_schema_extra={"before": [0.9, 0.999]},
    )
    weight_decay: float = Field(
        ge=0,
        le=10,
        description="decoupled decay per unit of lr, also of the magnitudes of model.norm=weight; "
        "biases and the gains of layer and RMS norms have none",
    )
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(
        description="lr after the warm-up: as it is, down to 0 along a half cosine, or Smith's "
        "cycle (lr/25 to lr to lr/250000); over trainer.epochs, even where training stops early",
        json_schema_extra={"before": "constant"},
    )
    warmup: float = Field(
        ge=0,
        lt=1,
        description="share of all steps in which lr rises",
        json_schema_extra={"before": 0.0},
    )

    def build(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        # Biases and the gains of norms are vectors. The magnitudes of weight norm have three axes
        # and count as weights here.
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)

    def lr_at(self, step: int, n_steps: int) -> float:
        rise = self.warmup * n_steps  # steps, not always a whole number
        if self.schedule == "one_cycle":
            peak = rise - 1  # torch counts the phases' ends from step 0
            if step < peak:
                return self.lr * _cosine(ONE_CYCLE_START, 1.0, step / peak)
            return self.lr * _cosine(1.0, ONE_CYCLE_END, (step - peak) / max(n_steps - 1 - peak, 1))
        if step + 1 < rise:
            # step + 1, because a first step at rate 0 would change nothing.
            return self.lr * (step + 1) / rise
        if self.schedule == "constant":
            return self.lr
        # 0 is reached one step after the last, so that the last one still learns.
        return self.lr * _cosine(1.0, 0.0, max(step - rise, 0) / (n_steps - rise))


def _cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` to `end`; a share of the way outside [0, 1] counts as 0 or 1."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))
