"""TPE with a Wilcoxon signed-rank test over folds and seeds: a trial ends once its finished units
are worse than the best trial's on the same units.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import optuna
from pydantic import Field

from hft.study.sweep._tpe import TpeSpec


class Folds(TpeSpec):
    kind: Literal["folds"]
    prunes: ClassVar[Literal["", "epoch", "unit"]] = "unit"
    p_threshold: float = Field(
        gt=0,
        lt=1,
        description="p-value below which a trial is given up; n units reach 2^-n at best",
    )
    n_startup_units: int = Field(ge=0, le=10_000, description="units that every trial may finish")

    def pruner(self, n_steps: int) -> optuna.pruners.WilcoxonPruner:
        # The pruner is experimental to Optuna, which would say so once per trial.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _Quiet(p_threshold=self.p_threshold, n_startup_steps=self.n_startup_units)


class _Quiet(optuna.pruners.WilcoxonPruner):
    """Prunes no trial that cannot be compared (no common unit, a value that is not finite), and
    does not warn.
    """

    def prune(self, study: Any, trial: optuna.trial.FrozenTrial) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().prune(study, trial)
