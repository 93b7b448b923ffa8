"""The trials of a study as facts: what became of each, which stands before which, and all of them
as one frame.

In: a Study. Out: names of states, feasibility, reasons, an order, and `trials_frame`. Reports and
tables read trials only through here, so that they agree on what counts as failed, retried or best.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.space import Dimension, Scalar
    from hft.study.study import Study

STATES = ("complete", "pruned", "failed", "retried", "running", "waiting")
ENDED = ("complete", "pruned", "failed")  # what counts towards n_trials
N_TRIALS = "n_trials"  # attribute of the study in which each call leaves its total
MIN_FOR_IMPORTANCE = (
    10  # complete trials: with fewer the top group is one or two, and any parameter seems important
)
TOP_TRIALS = 5  # that PED-ANOVA compares with all, where a tenth would be fewer


def retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one repeats."""
    return {t.user_attrs["retry_of"] for t in trials if t.user_attrs.get("retry_of") is not None}


def state_of(trial: FrozenTrial, repeated: set[int]) -> str:
    """One of STATES; `repeated` is `retried` of the study's trials."""
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    return "retried" if state == "failed" and trial.number in repeated else state


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """Those of a waiting trial too, which has them only as what it was enqueued with."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """How far each constraint is broken: at most 0 where it holds."""
    return dict(trial.constraints)


def is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in constraints_of(trial).values())


def reason_of(trial: FrozenTrial) -> str:
    """Why it failed, in one printable line; empty where it did not."""
    if trial.state.name != "FAIL":
        return ""
    outcome = trial.user_attrs.get("outcome") or {}
    text = str(trial.user_attrs.get("reason") or outcome.get("reason") or "no reason given").strip()
    return printable(next(iter(text.splitlines()), ""))


def printable(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def common_cause(reasons: Sequence[str]) -> str:
    """The most frequent reason and how many share it; reasons that differ in numbers only are the
    same.
    """
    if not reasons:
        return ""
    shapes = Counter(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", reason) for reason in reasons)
    shape, count = shapes.most_common(1)[0]
    example = next(r for r in reasons if re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", r) == shape)
    return f"{count} of {len(reasons)}: {example}"


def run_id(study: Study, number: int) -> str:
    """What `ckpt=` takes."""
    return f"{study.name}/{study.trial_folder(number).name}"


def values_of(trial: FrozenTrial) -> list[float]:
    """One per objective; of a pruned trial the last that it reported."""
    return list(trial.values or [])


def ranked(study: Study) -> list[FrozenTrial]:
    """Ended trials, best first: the best ones, other feasible ones, infeasible ones, pruned ones,
    failed ones.
    """
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
    """How many trials the study is to have, without retries, by the latest call."""
    if isinstance(latest := study.optuna.user_attrs.get(N_TRIALS), int):
        return latest
    if study.sweep.kind != "grid":
        return study.sweep.n_trials
    n_points = len(study.space.grid())
    return min(study.sweep.n_trials or n_points, n_points)


class Labels:
    """What tells the trials of a study apart: their overrides, numbers cut, without those that all
    of them share.
    """

    def __init__(self, study: Study, trials: Iterable[FrozenTrial] = ()) -> None:
        self.dimensions = study.space.dimensions
        self.overrides: dict[
            int, list[str]
        ] = {}  # a sweep's table asks twice a second, and they never change
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
    """A value as a reader wants it: four digits of what is drawn from a continuous range; "" needs
    no override.
    """
    if dimension.choices is not None or dimension.integer:
        return dimension.text(value)
    return (
        f"{value:.10g}"
        if dimension.step
        else f"{value:.0f}"
        if 1e4 <= abs(value) < 1e9
        else f"{value:.4g}"
    )


def importances(study: Study, k: int = 0) -> dict[str, float]:
    """How differently the best trials by objective `k` choose a parameter than all do (PED-ANOVA),
    as shares of 1; {} where there are too few trials to tell.
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
        warnings.simplefilter(
            "ignore", UserWarning
        )  # small groups, and that `target` is read as a loss, which it is
        return get_param_importances(
            study.optuna,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile),
            target=lambda t: sign * t.values[k],
        )


def complete_trials(study: Study) -> list[FrozenTrial]:
    """Those that can be drawn and compared: with numbers for values."""
    return [
        t
        for t in study.trials()
        if t.state.name == "COMPLETE" and all(map(math.isfinite, t.values))
    ]


def next_lines(study: Study, trial: FrozenTrial) -> list[str]:
    """What to paste: score this trial's run, and train its config anew."""
    overrides = [*study.about.get("overrides", []), *study.space.overrides(params_of(trial))]
    return [
        f"python backtest.py ckpt={run_id(study, trial.number)}",
        f"python train.py {shlex.join(overrides)}".strip(),
    ]


def trials_frame(study: Study) -> pl.DataFrame:
    """One row per trial, one column per objective, parameter path and `constraint/<name>`; absent
    ones are null.
    """
    trials = study.trials()
    repeated = retried(trials)
    params = list(study.space.distributions())
    params += sorted({name for t in trials for name in params_of(t)} - set(params))
    constraints = sorted({name for t in trials for name in constraints_of(t)})
    columns = [
        pl.Series("number", [t.number for t in trials], dtype=pl.Int64),
        pl.Series("state", [state_of(t, repeated) for t in trials], dtype=pl.String),
    ]
    for k, objective in enumerate(study.sweep.objectives):
        columns.append(
            pl.Series(objective, [_at(values_of(t), k) for t in trials], dtype=pl.Float64)
        )
    columns += [_column(name, [params_of(t).get(name) for t in trials]) for name in params]
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


def _column(name: str, values: list[Any]) -> pl.Series:
    """Of one type that holds all values: numbers where all are, else text."""
    kinds = {type(v) for v in values if v is not None}
    for allowed, dtype in (({bool}, pl.Boolean), ({int}, pl.Int64), ({int, float}, pl.Float64)):
        if kinds <= allowed and kinds:
            return pl.Series(name, values, dtype=dtype, strict=False)
    return pl.Series(name, [_text(v) for v in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _at(values: list[float], k: int) -> float | None:
    return values[k] if k < len(values) else None


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Optuna keeps the local time without its zone."""
    return None if moment is None else moment.astimezone(dt.UTC)
