"""Averaged weights (`trainer.ema`): an exponential moving average of what is trained, which takes
its place whenever something is scored or saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Averages:
    """`decay` 0 keeps no average: what is trained is also what is scored."""

    def __init__(self, parameters: list[torch.nn.Parameter], *, decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []

    def step(self, count: int) -> None:
        """After the optimiser's step number `count`, from 0."""
        if self.values:
            # The first weights are forgotten sooner, or the average would be of the initial ones.
            decay = min(self.decay, (1 + count) / (10 + count))
            get_ema_multi_avg_fn(decay)(self.values, self.parameters, None)  # type: ignore[no-untyped-call] # torch

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand where the trained weights were; those come back afterwards."""
        if not self.values:
            yield
            return
        # Values are copied and the tensors stay: the optimiser, the classifier and a compiled
        # network all hold these same parameters.
        trained = [p.detach().clone() for p in self.parameters]
        _assign(self.parameters, self.values)
        try:
            yield
        finally:
            _assign(self.parameters, trained)

    def restore(self, values: Sequence[torch.Tensor]) -> None:
        """Goes on from `values`, or from the weights as they are where a training had kept none."""
        if self.values:
            # A state saved without averages is empty: `trainer.ema` may be set when a run goes on.
            _assign(self.values, values or self.parameters)


@torch.no_grad()
def _assign(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
