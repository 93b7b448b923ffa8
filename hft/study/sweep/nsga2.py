"""NSGA-II (Deb et al. 2002): the front between conflicting objectives: gain and turnover."""

from __future__ import annotations

from typing import Any, Literal

import optuna
from pydantic import Field

from hft.study.sweep import SweepSpec

DRAWS = 32  # a small discrete space runs out of new points


class Nsga2(SweepSpec):
    kind: Literal["nsga2"]
    population: int = Field(ge=2, le=100_000, description="trials of one generation")

    def sampler(self, seed: int) -> optuna.samplers.NSGAIISampler:
        return DistinctChildren(population_size=self.population, seed=seed)


class DistinctChildren(optuna.samplers.NSGAIISampler):
    """Draws a child anew where it repeats a trial. In Optuna 5.0.0 28 of 400 children did so with
    six parameters, and 66 with two.
    """

    def sample_relative(
        self, study: Any, trial: Any, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        known = [other.params for other in study.get_trials(deepcopy=False)]
        for _ in range(DRAWS):
            child = super().sample_relative(study, trial, search_space)
            # Parameters that mutate are drawn later, so that such a child is new.
            if len(child) < len(search_space) or child not in known:
                break
        return child
