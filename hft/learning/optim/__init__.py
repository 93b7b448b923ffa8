"""The optimiser and its learning rate at every step.

In: a network; then a step's number and how many there will be. Out: a torch optimiser; the rate of
that step, a pure function, so a resumed training needs no state of a scheduler. To add an
optimiser: `hft/learning/optim/<kind>.py` with a subclass of OptimSpec, `conf/optim/<kind>.yaml` and
a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hft.spec import Kind

if TYPE_CHECKING:
    import torch


class OptimSpec(Kind):
    def build(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        raise NotImplementedError

    def lr_at(self, step: int, n_steps: int) -> float:
        """The learning rate of `step`, from 0, of `n_steps`."""
        raise NotImplementedError
