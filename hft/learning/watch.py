"""Who may end a run early: told what it comes to, epoch by epoch or unit by unit, it answers
whether to stop.

A sweep's pruner is one (hft/search/worker.py). What a stopped run has is kept: the best weights so
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
    """`objective` names the metric to report. After each epoch of each unit (fold and seed) in turn
    the step is finished units * epochs + epoch; with `per_epoch` False it is the unit's index,
    after each unit.
    """

    objective: str
    per_epoch: bool

    def report(self, step: int, value: float) -> bool:
        """True: stop. After a kill it may see a step twice."""
        ...


@dataclass
class Watched:
    """A run of `n_units` trainings of at most `epochs` each, before its watch, if it has one."""

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
        """Whether to stop. What ends with this step anyway is finished, not pruned."""
        step = self.finished * self.epochs + epoch
        if self.of_epochs and self.watch.report(step, self._value(metrics)):
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
                f"objective {self.objective}: has no value after {when}, so that nothing can be pruned by it; choose "
                "one of select or tune, or a sweep that does not prune"
            )
        value = metrics[self.objective]
        return float("nan") if value is None else float(value)
