"""The sampler that `tpe`, `asha` and `folds` share."""

from __future__ import annotations

import warnings

import optuna
from pydantic import Field

from hft.study.sweep import SweepSpec


class TpeSpec(SweepSpec):
    n_startup: int = Field(
        ge=1, le=10_000, description="random trials before the search learns from results"
    )

    def sampler(self, seed: int) -> optuna.samplers.TPESampler:
        """`group` models parameters that exist only under one choice together with it; the constant
        liar keeps parallel workers from the same point.
        """
        # Three of these arguments are experimental to Optuna, which would say so once per trial.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=self.n_startup,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=seed,
            )
