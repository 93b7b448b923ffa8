"""Points drawn independently of all results: the control that a search has to beat."""

from __future__ import annotations

from typing import Literal

import optuna

from hft.study.sweep import SweepSpec


class Random(SweepSpec):
    kind: Literal["random"]

    def sampler(self, seed: int) -> optuna.samplers.RandomSampler:
        return optuna.samplers.RandomSampler(seed=seed)
