"""Bayesian optimisation with a Gaussian process: few numbers to find, each trial dear."""

from __future__ import annotations

from typing import Literal

import optuna
from pydantic import Field

from hft.study.sweep import SweepSpec


class Gp(SweepSpec):
    kind: Literal["gp"]
    n_startup: int = Field(
        ge=1, le=10_000, description="random trials before the search learns from results"
    )

    def sampler(self, seed: int) -> optuna.samplers.GPSampler:
        # A field of one kind only, such as loss.gamma, is drawn apart from the Gaussian process. It
        # is meant so, and Optuna would warn of it in every trial.
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=self.n_startup, warn_independent_sampling=False
        )
