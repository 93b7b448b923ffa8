"""How a sweep searches: which points to try, and which trials to end early.

In: a space, the trials so far. Out: an Optuna sampler and pruner. To add one:
`hft/study/sweep/<kind>.py` with a subclass of SweepSpec, `conf/sweep/<kind>.yaml` with a space
worth searching, one test; the conformance suite covers it at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hft.metrics import lower_is_better
from hft.spec import Kind, Role, Spec, did_you_mean

if TYPE_CHECKING:
    import optuna

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIMEOUT = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_ENQUEUE = re.compile(r"defaults|study:[A-Za-z0-9][A-Za-z0-9._-]*")


class Bound(Spec):
    min: float | None = Field(description="the metric's least value")
    max: float | None = Field(description="the metric's greatest value")

    @model_validator(mode="before")
    @classmethod
    def _open_ends(cls, bound: Any) -> Any:
        # A field has no default, and YAML names only the end that a bound has.
        return {"min": None, "max": None, **bound} if isinstance(bound, dict) else bound

    @model_validator(mode="after")
    def _is_a_range(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("a constraint needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be <= max, got min={self.min}, max={self.max}")
        return self

    def excess(self, value: float) -> float:
        """By how much `value` breaks the bound; at most 0 where it keeps it. What is not a number
        breaks it.
        """
        ends = [self.min - value] if self.min is not None else []
        ends += [value - self.max] if self.max is not None else []
        return max(ends) if value == value else float("inf")


class SweepSpec(Kind):
    # When a trial may be ended early: after an epoch, after a unit (one fold and seed), or never.
    prunes: ClassVar[Literal["", "epoch", "unit"]] = ""

    study: Annotated[str, Role.PLACE] = Field(
        max_length=64,
        description="the study's name; empty: named after the sweep and a hash of base config and "
        "space; new: another",
    )
    n_trials: Annotated[int, Role.EXTENT] = Field(
        ge=0, description="trials of the whole study, over all calls; 0 (grid only): every point"
    )
    timeout: Annotated[str, Role.EXTENT] = Field(
        description="sweeping time of the whole study, such as 45s, 90m, 8h or 2d; empty: no limit"
    )
    seed: int = Field(
        ge=0, lt=2**31, description="seed of the search; trainings have the config's own"
    )
    storage: Annotated[str, Role.PLACE] = Field(
        min_length=1,
        description="journal, sqlite, or postgresql+psycopg://user@host/database; no password",
    )
    max_retry: Annotated[int, Role.EXTENT] = Field(
        ge=0, le=100, description="times that a trial is tried again when its worker died"
    )
    objectives: tuple[str, ...] = Field(
        min_length=1, description="metrics of a run; the direction follows the name"
    )
    constraints: dict[str, Bound] = Field(
        description="metric -> {min, max} that a trial must keep to count, such as "
        "{select/trades: {min: 30}}"
    )
    enqueue: Annotated[tuple[Any, ...], Role.EXTENT] = Field(
        description="points to try first: defaults, study:<name> or a mapping of paths to values"
    )
    space: dict[str, Any] = Field(
        description="path -> [values], {low, high, step, log} or {values, when}"
    )

    @field_validator("constraints", "space", mode="before")
    @classmethod
    def _null_is_empty(cls, mapping: Any) -> Any:
        # A key with nothing behind it is null in YAML.
        return {} if mapping is None else mapping

    @field_validator("study", "timeout", mode="before")
    @classmethod
    def _number_is_text(cls, text: Any) -> Any:
        """`sweep.study=2024` reaches us as a number. A number for a time becomes text that lacks
        its unit, which the next check says.
        """
        return str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text

    @field_validator("study")
    @classmethod
    def _is_a_name(cls, study: str) -> str:
        if study and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", study):
            raise ValueError(
                f"must be letters, digits, '.', '_' and '-', a letter or digit first, got {study!r}"
            )
        return study

    @field_validator("timeout")
    @classmethod
    def _is_a_time(cls, timeout: str) -> str:
        match = _TIMEOUT.fullmatch(timeout)
        if timeout and not (match and float(match[1]) > 0):
            raise ValueError(
                f"must be a number > 0 with s, m, h or d, such as 90m, or empty, got {timeout!r}"
            )
        return timeout

    @field_validator("objectives")
    @classmethod
    def _differ(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(objectives)) < len(objectives):
            raise ValueError(f"each objective once, got {', '.join(objectives)}")
        return objectives

    @field_validator("enqueue")
    @classmethod
    def _are_points(cls, enqueue: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in enqueue:
            if isinstance(entry, dict) or (isinstance(entry, str) and _ENQUEUE.fullmatch(entry)):
                continue
            hint = did_you_mean(str(entry), ["defaults", "study:"])
            raise ValueError(
                "each must be defaults, study:<name> or a mapping of paths to values, "
                f"got {entry!r}{hint}"
            )
        return enqueue

    @model_validator(mode="after")
    def _ends_and_can_prune(self) -> SweepSpec:
        if self.n_trials == 0 and self.kind != "grid":
            raise ValueError(
                f"n_trials must be > 0: {self.kind} has no last point; set sweep.n_trials=50"
            )
        # Optuna prunes by one objective only.
        if self.prunes and len(self.objectives) > 1:
            raise ValueError(
                f"{self.kind} prunes by one objective, got {', '.join(self.objectives)}; "
                "take sweep=nsga2"
            )
        return self

    @property
    def timeout_s(self) -> float | None:
        """The time limit in seconds, None without one."""
        match = _TIMEOUT.fullmatch(self.timeout)
        return float(match[1]) * SECONDS[match[2]] if match else None

    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """One per objective."""
        return ["minimize" if lower_is_better(name) else "maximize" for name in self.objectives]

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        raise NotImplementedError

    def pruner(self, n_steps: int) -> optuna.pruners.BasePruner:
        """`n_steps`: how often a whole trial reports, once per epoch of each unit or once per
        unit.
        """
        from optuna.pruners import NopPruner

        return NopPruner()


def trial_seed(seed: int, number: int) -> int:
    """The sampler's seed for a trial: the same whoever asks, and different for every number below
    2**31.
    """
    # Each step can be undone (an odd factor, a shift xored in), so that no two numbers meet.
    mixed = (number * 0x9E3779B1 + (seed + 1) * 0x85EBCA6B) % 2**31
    mixed = ((mixed ^ mixed >> 15) * 0x2C1B3C6D) % 2**31
    return mixed ^ mixed >> 12
