"""The trials of a study as facts: what became of each, their order, and all of them as one frame.

In: a Study. Out: names of states, feasibility, reasons, metrics, an order, and `trials_frame`.
Reports and tables read trials only through here, so that they agree on what counts as failed,
retried or best.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from hft.study.outcome import read_outcome
from hft.system.commands import typed

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.space import Dimension, Scalar
    from hft.study.study import Study

STATES = ("complete", "pruned", "failed", "retried", "running", "waiting")
ENDED = ("complete", "pruned", "failed")  # what counts towards n_trials
N_TRIALS = "n_trials"  # attribute of the study in which each call leaves its total
# Complete trials: with fewer the top group is one or two, and any parameter seems important.
MIN_FOR_IMPORTANCE = 10
TOP_TRIALS = 5  # PED-ANOVA compares at least so many with all trials, else a tenth of them


def retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one repeats."""
    return {t.user_attrs["retry_of"] for t in trials if t.user_attrs.get("retry_of") is not None}


def state_of(trial: FrozenTrial, repeated: set[int]) -> str:
    """One of STATES; `repeated` is `retried` of the study's trials."""
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    return "retried" if state == "failed" and trial.number in repeated else state


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """A waiting trial's parameters are those that it was enqueued with."""
    from hft.study.optuna_internals import enqueued_params

    return dict(trial.params or enqueued_params(trial) or {})


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """By how much each constraint is broken: at most 0 where it holds."""
    return dict(trial.constraints)


def is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in constraints_of(trial).values())


def reason_of(trial: FrozenTrial) -> str:
    """Why the trial failed, in one printable line; empty where it did not fail."""
    if trial.state.name != "FAIL":
        return ""
    text = str(trial.user_attrs.get("reason") or "no reason given").strip()
    return printable(next(iter(text.splitlines()), ""))


def printable(text: str) -> str:
    """`text` without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def common_cause(reasons: Sequence[str]) -> str:
    """The most frequent reason and how many trials share it; reasons that differ in numbers only
    count as one.
    """
    if not reasons:
        return ""
    shapes = Counter(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", reason) for reason in reasons)
    shape, count = shapes.most_common(1)[0]
    example = next(r for r in reasons if re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", r) == shape)
    return f"{count} of {len(reasons)}: {example}"


def run_id(study: Study, number: int) -> str:
    """The trial's id for `ckpt=`."""
    return f"{study.name}/{study.trial_folder(number).name}"


def values_of(trial: FrozenTrial) -> list[float]:
    """One value per objective; of a pruned trial the value that it reported last."""
    return list(trial.values or [])


def numbers_of(study: Study, trial: FrozenTrial) -> dict[str, float | None]:
    """A trial's metrics as its worker sent them (hft/study/shown.py), then its objectives."""
    values = zip(study.sweep.objectives, values_of(trial), strict=False)
    stored = trial.user_attrs.get("outcome")
    metrics = {} if stored is None else read_outcome(stored).metrics
    return {**metrics, **dict(values)}


def shown_of(study: Study, trials: Iterable[FrozenTrial]) -> list[str]:
    """The metrics that any of `trials` has, without the objectives, in the order of reports."""
    names = dict.fromkeys(name for trial in trials for name in numbers_of(study, trial))
    return [name for name in names if name not in study.sweep.objectives]


def ranked(study: Study) -> list[FrozenTrial]:
    """Ended trials in this order: best, other feasible, infeasible, pruned, failed ones."""
    trials = study.trials()
    repeated, best = retried(trials), {t.number for t in study.best()}
    worst_first = study.optuna.directions[0].name == "MAXIMIZE"

    def place(trial: FrozenTrial) -> tuple[int, float, int]:
        state, values = state_of(trial, repeated), values_of(trial)
        group = ENDED.index(state) + 2 if state != "complete" else 0 if trial.number in best else 1
        group = 2 if state == "complete" and not is_feasible(trial) else group
        value = (-values[0] if worst_first else values[0]) if values else 0.0
        return group, value, trial.number

    return sorted((t for t in trials if state_of(t, repeated) in ENDED), key=place)


def total(study: Study) -> int:
    """How many trials the study is to have, without retries, after the latest call."""
    if isinstance(latest := study.optuna.user_attrs.get(N_TRIALS), int):
        return latest
    # No call has noted its total yet.
    if study.sweep.kind != "grid":
        return study.sweep.n_trials
    n_points = len(study.space.grid())
    return min(study.sweep.n_trials or n_points, n_points)


class Labels:
    """What tells the trials of a study apart: their overrides, with rounded numbers, without the
    overrides that all of them share.
    """

    def __init__(
        self,
        study: Study,
        trials: Iterable[FrozenTrial] = (),
        *,
        without: str = "",
        first: Mapping[str, float] | None = None,
    ) -> None:
        """`without` is the path of a parameter to leave out; those with the largest shares of
        `first` come first.
        """
        shares = first or {}
        kept = [d for d in study.space.dimensions if d.path != without]
        self.dimensions = sorted(kept, key=lambda d: -shares.get(d.path, 0.0))
        # Kept by trial: a sweep's table asks twice a second, and overrides never change.
        self.overrides: dict[int, list[str]] = {}
        self.same: set[str] = set()
        self.see(trials)

    def see(self, trials: Iterable[FrozenTrial]) -> Labels:
        for trial in trials:
            params = params_of(trial)
            if params and trial.number not in self.overrides:
                there = [(d, params[d.path]) for d in self.dimensions if d.path in params]
                given = [
                    f"{d.prefix}{d.path}={brief(d, value)}"
                    for d, value in there
                    if d.override(value)
                ]
                self.overrides[trial.number] = given
                self.same = self.same & set(given) if len(self.overrides) > 1 else set(given)
        return self

    def __call__(self, trial: FrozenTrial) -> str:
        given = self.overrides.get(trial.number, [])
        alone = len(self.overrides) == 1
        return printable(" ".join(o for o in given if alone or o not in self.same))


def brief(dimension: Dimension, value: Scalar) -> str:
    """A value for readers: four digits where it is drawn from a continuous range; "" where it needs
    no override.
    """
    is_drawn = dimension.choices is None and not dimension.integer
    if not is_drawn or not isinstance(value, int | float):
        return dimension.text(value)
    if dimension.step:
        return f"{value:.10g}"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def importances(study: Study, k: int = 0) -> dict[str, float]:
    """How much the choices of the best trials by objective `k` differ from those of all trials
    (PED-ANOVA), as shares of 1, largest first; {} where trials are too few to tell.
    """
    complete = complete_trials(study)
    if len(complete) < MIN_FOR_IMPORTANCE:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    quantile = min(max(0.1, TOP_TRIALS / len(complete)), 0.5)
    sign = 1 if study.optuna.directions[k].name == "MINIMIZE" else -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna warns of small groups, and that it reads `target` as a loss, which `sign` makes it.
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(
            study.optuna,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile),
            target=lambda t: sign * t.values[k],
        )


def complete_trials(study: Study) -> list[FrozenTrial]:
    """The complete trials whose values are all finite: they can be drawn and compared."""
    return [
        t
        for t in study.trials()
        if t.state.name == "COMPLETE" and all(map(math.isfinite, t.values))
    ]


def next_lines(study: Study, trial: FrozenTrial) -> list[str]:
    """Commands to paste: score this trial's run, and train its config again."""
    overrides = [*study.about.get("overrides", []), *study.space.overrides(params_of(trial))]
    return [
        typed("backtest", f"ckpt={run_id(study, trial.number)}"),
        typed("train", *([shlex.join(overrides)] if overrides else [])),
    ]


def trials_frame(study: Study) -> pl.DataFrame:
    """One row per trial; columns for objectives, metrics, parameter paths and `constraint/<name>`,
    null where a trial has none.
    """
    trials = study.trials()
    numbers = [numbers_of(study, trial) for trial in trials]
    repeated = retried(trials)
    params = list(study.space.distributions())
    params += sorted({name for t in trials for name in params_of(t)} - set(params))
    constraints = sorted({name for t in trials for name in constraints_of(t)})
    columns = [
        pl.Series("number", [t.number for t in trials], dtype=pl.Int64),
        pl.Series("state", [state_of(t, repeated) for t in trials], dtype=pl.String),
    ]
    for name in [*study.sweep.objectives, *shown_of(study, trials)]:
        columns.append(pl.Series(name, [n.get(name) for n in numbers], dtype=pl.Float64))
    columns += [column(name, [params_of(t).get(name) for t in trials]) for name in params]
    for name in constraints:
        given = [constraints_of(t).get(name) for t in trials]
        columns.append(pl.Series(f"constraint/{name}", given, dtype=pl.Float64))
    return pl.DataFrame([*columns, *_history(study, trials)])


def _history(study: Study, trials: list[FrozenTrial]) -> list[pl.Series]:
    attrs = [t.user_attrs for t in trials]
    folders = [None if t.state.name == "WAITING" else run_id(study, t.number) for t in trials]
    feasible = [is_feasible(t) if t.state.name == "COMPLETE" else None for t in trials]
    seconds = [t.duration.total_seconds() if t.duration else None for t in trials]
    return [
        pl.Series("feasible", feasible, dtype=pl.Boolean),
        pl.Series("origin", [a.get("origin") for a in attrs], dtype=pl.Int64),
        pl.Series("attempt", [a.get("attempt") for a in attrs], dtype=pl.Int64),
        pl.Series("retry_of", [a.get("retry_of") for a in attrs], dtype=pl.Int64),
        pl.Series(
            "started", [_utc(t.datetime_start) for t in trials], dtype=pl.Datetime("us", "UTC")
        ),
        pl.Series("duration_s", seconds, dtype=pl.Float64),
        pl.Series("folder", folders, dtype=pl.String),
        pl.Series("reason", [reason_of(t) or None for t in trials], dtype=pl.String),
    ]


def column(name: str, values: list[Any]) -> pl.Series:
    """A series of one type that holds all values: numbers where all are numbers, else text."""
    kinds = {type(v) for v in values if v is not None}
    for allowed, dtype in (({bool}, pl.Boolean), ({int}, pl.Int64), ({int, float}, pl.Float64)):
        if kinds <= allowed and kinds:
            # Not strict, because a float's column also holds the integers among its values.
            return pl.Series(name, values, dtype=dtype, strict=False)
    return pl.Series(name, [_text(v) for v in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Optuna keeps the local time without its zone."""
    return None if moment is None else moment.astimezone(dt.UTC)
