"""A watch may end a run early: it gets the value of each epoch, or of each fold and seed, and
returns True to stop.

A sweep's pruner is one (hft/search/worker.py). A stopped run keeps what it has: the best weights so
far, calibrated and scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hft.spec import UserError


class WatchError(UserError):
    """An objective that cannot be watched."""


class Watch(Protocol):
    """`objective` names the metric to report. A report comes after each epoch of each unit (fold
    and seed) in turn; its step is finished units * epochs + epoch. With `per_epoch` False it comes
    after each unit, and its step is the unit's index.
    """

    objective: str
    per_epoch: bool

    def report(self, step: int, value: float) -> bool:
        """True: stop. After a kill it may see a step twice."""
        ...


@dataclass
class Watched:
    """A run of `n_units` trainings of at most `epochs` each, and its watch, if it has one."""

    watch: Watch | None
    n_units: int
    epochs: int
    finished: int = 0  # units
    pruned: bool = False

    @property
    def of_epochs(self) -> bool:
        return self.watch is not None and self.watch.per_epoch

    @property
    def objective(self) -> str:
        return self.watch.objective if self.watch else ""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether to stop. A run that ends with this step anyway is finished, not pruned."""
        # A unit that stops early leaves a gap: a step means the same unit and epoch in every trial.
        step = self.finished * self.epochs + epoch
        watch = self.watch if self.of_epochs else None
        if watch is not None and watch.report(step, self._value(metrics)):
            self.pruned |= step + 1 < self.n_units * self.epochs
        return self.pruned

    def unit(self, metrics: Mapping[str, float | None]) -> bool:
        """Whether to stop, after a unit that came to `metrics`."""
        self.finished += 1
        if self.watch is not None and not self.watch.per_epoch:
            stop = self.watch.report(self.finished - 1, self._value(metrics))
            self.pruned |= stop and self.finished < self.n_units
        return self.pruned

    def _value(self, metrics: Mapping[str, float | None]) -> float:
        if self.objective not in metrics:
            when = "an epoch" if self.of_epochs else "a fold and seed"
            raise WatchError(
                f"objective {self.objective}: has no value after {when}, so that nothing can be "
                "pruned by it; choose one of select or tune, or a sweep that does not prune"
            )
        value = metrics[self.objective]
        return float("nan") if value is None else float(value)
