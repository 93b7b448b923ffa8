"""A sweep as the command line asks for it: overrides in, a checked Plan out.

A plan holds the base config, what varies, and the settings of search and engine. Before any trial
it refuses typos, values that are never valid, objectives that no run logs or that cannot be
compared across the space, and points to try first that lie outside of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Override

from hft.config.compose import Composer, compose, to_plain
from hft.config.configs import TrainConfig
from hft.config.conflicts import overlay_conflicts
from hft.config.groups import read_groups
from hft.config.objectives import known_metrics, refuse_incomparable
from hft.config.overrides import line_of
from hft.search.launcher import LauncherSpec
from hft.search.settings import read_sweep
from hft.space import Space, check_space, read_space
from hft.spec import Role, SpecError, UserError, did_you_mean, fingerprint, numbers_of
from hft.study.find import find_study
from hft.study.study import Study
from hft.study.sweep import SweepSpec

N_FROM_STUDY = 5  # best points that `enqueue: [study:<name>]` takes over
Point = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """`choice` is the name of the sweep's YAML. `points` are a grid's, or those to try first.
    `fixed` are the overrides of all trials, `base` what the trials share and what changes numbers,
    `config` the config of one point.
    """

    choice: str
    sweep: SweepSpec
    launcher: LauncherSpec
    space: Space
    points: list[Point]
    fixed: list[str]
    base: dict[str, Any]
    config: TrainConfig

    @property
    def default_name(self) -> str:
        # Whatever may differ from call to call (the total, the storage) is no part of the name: the
        # same command finds its study again.
        asked = numbers_of(type(self.sweep), self.sweep.plain(), without=tuple(Role))
        identity = {name: value for name, value in asked.items() if name != "space"}
        return f"{self.choice}-{fingerprint([identity, self.base, self.space.plain()])[:8]}"

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.config.trainer.kind == "gpu" else "cpu"


def make_plan(overrides: list[Override], conf: Path) -> Plan:
    """Raises SpecError with everything that is wrong."""
    composed = compose(_single(overrides), full_tree=True, conf=conf)
    choices = dict(composed.hydra.runtime.choices)
    if "kind" not in composed.sweep:
        raise SpecError(
            f"sweep={choices['sweep']}: its YAML has no kind, so it is part of a sweep only; begin "
            "one of your own with defaults: [tpe, _self_]"
        )
    settings = read_sweep(composed)
    sweep = settings.sweep
    base = to_plain(composed)
    space, fixed = read_space(
        sweep.space, overrides, base=base, choices=choices, known=read_groups(conf)
    )
    points = space.grid() if sweep.kind == "grid" else []  # refuses what has no last value
    _refuse_overlaid(space, fixed, choices, conf)
    _refuse_one_point(sweep, space)
    configs = _prove(space, fixed, conf, seed=sweep.seed)
    _check_objectives(sweep, configs)
    for entry in sweep.enqueue:
        if entry == "defaults":
            points += [point] if (point := space.defaults(base, choices)) else []
        elif isinstance(entry, dict):
            points.append(_given(entry, space))
        else:
            points += _best_of(Path(configs[0].paths.sweeps) / entry.removeprefix("study:"), space)
    shared = numbers_of(TrainConfig, base)
    return Plan(
        choices["sweep"], sweep, settings.launcher, space, points, fixed, shared, configs[0]
    )


def points_of(plan: Plan, study: Study) -> tuple[list[Point], int]:
    """The points, each at the place of the trial that takes it, and the number of trials that the
    study is to have.
    """
    if plan.sweep.kind == "grid":
        return plan.points, min(plan.sweep.n_trials or len(plan.points), len(plan.points))
    given = [trial.system_attrs.get("fixed_params") for trial in study.trials()]
    # The k-th trial of a study takes the k-th point: those of an earlier call keep their places,
    # new ones come next.
    tried = [point for point in plan.points if point in given]
    # Places that are taken already and that no claim looks at.
    ahead: list[Point] = [{}] * (study.counts().points - len(tried))
    return [*tried, *ahead, *(p for p in plan.points if p not in tried)], plan.sweep.n_trials


def _single(overrides: list[Override]) -> list[str]:
    return [line_of(override) for override in overrides if not override.is_sweep_override()]


def _refuse_overlaid(space: Space, fixed: list[str], choices: dict[str, Any], conf: Path) -> None:
    """Raises SpecError where an experiment fills in the kind that it chose, and the sweep tries
    other kinds too. A single run takes the fields out; here the experiment's own kind needs them.
    """
    errors = []
    for group in space.dimensions:
        own, options = choices.get(group.path), group.choices or ()
        if own not in options:
            continue
        others = [option for option in options if option != own]
        clashes = (
            line
            for other in others
            for line in _overlaid({group.path: other}, space, fixed, choices, conf)
            if line.startswith(f"{group.path}: ")
        )
        if clash := next(clashes, ""):
            errors.append(
                f"{clash.partition('; the command line')[0]}, which was not meant for what else "
                f"the sweep tries ({', '.join(map(str, others))}); keep to the experiment's, "
                f"{group.path}={own} on the command line, or take the experiment out"
            )
    if errors:
        raise SpecError("\n".join(errors))


def _overlaid(
    point: Point, space: Space, fixed: list[str], choices: dict[str, Any], conf: Path
) -> list[str]:
    """The conflicts of an experiment with the choice of `point`, beside all that may vary with
    it.
    """
    given = [
        d.path
        for d in space.dimensions
        # A condition on a path that `point` leaves open may hold, so it counts as met.
        if all(point.get(on, values[0]) in values for on, values in d.when)
    ]
    return overlay_conflicts(choices | point, [*fixed, *given], conf=conf)


def _refuse_one_point(sweep: SweepSpec, space: Space) -> None:
    """Trials of the same config and seed have the same result."""
    if (
        sweep.kind != "grid"
        and sweep.n_trials > 1
        and all(d.choices and len(d.choices) == 1 for d in space.dimensions)
    ):
        held = "nothing varies" if not space.dimensions else "every path of it has one value"
        raise SpecError(
            f"sweep.space: {held}, so all {sweep.n_trials} trials would be the same run; give a "
            "path more values, such as 'optim.lr=tag(log,interval(1e-4,1e-2))'"
        )


def _prove(space: Space, fixed: list[str], conf: Path, *, seed: int) -> list[TrainConfig]:
    configs: list[TrainConfig] = []
    composer = Composer(TrainConfig, fixed, conf=conf)

    def try_point(overrides: list[str]) -> dict[str, Any]:
        config = composer(overrides)
        configs.append(config)
        return config.plain()

    n_values = sum(len(dimension.corners()) for dimension in space.dimensions)
    # A compose takes 25 ms, and 140 ms with groups of its own: a longer list is a noticeable wait.
    if n_values > 20:
        sys.stderr.write(f"checking the {n_values} values of the space ...\n")
    check_space(space, try_point, seed=seed)
    return configs


def _check_objectives(sweep: SweepSpec, configs: Iterable[TrainConfig]) -> None:
    configs = list(configs)
    plains = [config.plain() for config in configs]
    named = {config.objective for config in configs}
    if len(named) > 1:
        raise SpecError(
            f"objective: all jobs of a sweep need the same one, got {', '.join(sorted(named))}"
        )
    # A sweep sees select alone (docs/definitions.md 4.7).
    known = [name for name in known_metrics(configs[0]) if name.startswith("select/")]
    for field, names in (("objectives", sweep.objectives), ("constraints", sweep.constraints)):
        for name in names:
            if name not in known:
                # Metrics of money end in a fee schedule, so that a name without one begins a longer
                # name.
                longer = next((metric for metric in known if metric.startswith(name)), "")
                hint = f", did you mean {longer!r}?" if longer else did_you_mean(name, known)
                hint = hint or f"; one of {', '.join(known)}"
                raise SpecError(
                    f"sweep.{field}: no run of this sweep logs {name!r} on select{hint}"
                )
    for name in sweep.objectives:
        refuse_incomparable(name, plains)


def _given(point: dict[str, Any], space: Space) -> Point:
    if wrong := space.fits(point):
        raise SpecError("\n".join(f"sweep.enqueue: {line}" for line in wrong))
    return space.point(point)


def _best_of(folder: Path, space: Space) -> list[Point]:
    """The best points of another study that are in this space."""
    try:
        other = find_study(folder.parent, folder.name)
    except UserError as error:
        raise SpecError(f"sweep.enqueue: {error}") from None
    signs = [1 if d.name == "MINIMIZE" else -1 for d in other.optuna.directions]
    complete = [t for t in other.trials() if t.state.name == "COMPLETE"]
    complete.sort(key=lambda t: [s * v for s, v in zip(signs, t.values, strict=True)])
    points = [space.point(t.params) for t in complete if not space.fits(t.params)]
    if not points:
        raise SpecError(
            f"sweep.enqueue: none of the {len(complete)} complete trials of {other.name} is in "
            "this space"
        )
    return points[:N_FROM_STUDY]
