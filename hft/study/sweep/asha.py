"""TPE with asynchronous successive halving in Hyperband's brackets (Li et al. 2018, 2020): trials
that are behind after a few epochs end there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import optuna
from pydantic import Field

from hft.study.sweep._tpe import TpeSpec


class Asha(TpeSpec):
    kind: Literal["asha"]
    prunes: ClassVar[Literal["", "epoch", "unit"]] = "epoch"
    min_epochs: int = Field(ge=1, le=100_000, description="epochs that every trial may train")
    reduction_factor: int = Field(
        ge=2, le=64, description="one of so many trials goes on at each rung"
    )

    def pruner(self, n_steps: int) -> optuna.pruners.HyperbandPruner:
        return optuna.pruners.HyperbandPruner(
            min_resource=self.min_epochs,
            # With "auto" Optuna prunes nothing until a first trial is complete.
            max_resource=max(n_steps, self.min_epochs),  # a trial shorter than that is never pruned
            reduction_factor=self.reduction_factor,
        )
