"""Every point of the space once, in order."""

from __future__ import annotations

from typing import Literal

import optuna

from hft.study.sweep import SweepSpec


class Grid(SweepSpec):
    kind: Literal["grid"]

    def sampler(self, seed: int) -> optuna.samplers.RandomSampler:
        """Draws nothing: the driver hands out `Space.grid()` point by point."""
        return optuna.samplers.RandomSampler(seed=seed)
