"""How far a sweep is: counts, the best so far, the time left, the running trials, and a line per
trial that ended.

In: a Study. Out: what a terminal shows in place, each fact in one line, and plain text elsewhere.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.text import Text

from hft.study.tables import TrialTable, setting_columns, short_name, values_line
from hft.study.trials import (
    ENDED,
    importances,
    is_feasible,
    reason_of,
    retried,
    run_id,
    state_of,
    total,
    values_of,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

N_RUNNING = 12  # rows of running trials: a screen
N_BEST = 5  # of a Pareto front


def left_s(
    durations: Sequence[float], ages: Sequence[float], *, n_open: int, slots: int
) -> float | None:
    """Seconds until the last trial ends if no slot ever waits and trials last as long as those so
    far; None where no trial has ended yet.

    `ages` are of the running trials, `n_open` counts those not begun.
    """
    if not durations:
        return None if n_open or ages else 0.0
    mean = sum(durations) / len(durations)
    rests = [max(mean - age, 0.0) for age in ages]
    # Other drivers may run more trials than this one has slots. Whatever the slots are, the sweep
    # lasts as long as its longest rest.
    return max([(n_open * mean + sum(rests)) / max(slots, len(ages), 1), *rests])


def progress(
    study: Study,
    *,
    slots: int,
    n_total: int,
    shares: Mapping[str, float],
    elapsed_s: float | None = None,
    in_place: bool = True,
) -> Group:
    """The state of the sweep; `shares` are importances, {} as long as none. With `in_place` a line
    too long for the terminal is cut: one that folds would make the screen jump.
    """
    trials = study.trials()
    repeated = retried(trials)
    running = [t for t in trials if t.state.name == "RUNNING"]
    lines = [
        *_count_lines(study, n_total),
        *_best_lines(study),
        *_failure_lines(study, trials, repeated),
        _time_line(trials, repeated, n_total=n_total, slots=slots, elapsed_s=elapsed_s),
    ]
    shown = [
        Text(line, no_wrap=in_place, overflow="ellipsis" if in_place else "fold")
        for line in lines
        if line
    ]
    return Group(*shown, *([_running_table(study, trials, running, shares)] if running else []))


def _count_lines(study: Study, n_total: int) -> list[str]:
    counts = study.counts()
    done = counts.complete + counts.pruned + counts.failed
    parts = [f"{counts.complete} complete", f"{counts.pruned} pruned", f"{counts.failed} failed"]
    parts += [f"{counts.retried} retried", f"{counts.running} running"]
    parts += [f"{counts.waiting} waiting"] if counts.waiting else []
    return [f"{study.name}: {done} of {n_total} done", ", ".join(parts)]


def _best_lines(study: Study) -> list[str]:
    best, names = study.best(), study.sweep.objectives
    lines = []
    for trial in best[:N_BEST]:
        values = zip(names, values_of(trial), strict=True)
        shown = " ".join(f"{short_name(name, names)}={value:.6g}" for name, value in values)
        lines.append(f"best {shown}  {run_id(study, trial.number)}")
    if len(best) > N_BEST:
        lines.append(f"and {len(best) - N_BEST} more on the Pareto front")
    return lines


def _failure_lines(study: Study, trials: list[FrozenTrial], repeated: set[int]) -> list[str]:
    failed = [t for t in trials if state_of(t, repeated) == "failed"]
    return [f"last failure {run_id(study, t.number)}: {reason_of(t)}" for t in failed[-1:]]


def _time_line(
    trials: list[FrozenTrial],
    repeated: set[int],
    *,
    n_total: int,
    slots: int,
    elapsed_s: float | None,
) -> str:
    running = [t for t in trials if t.state.name == "RUNNING"]
    # Retried attempts are left out: what was cut short does not tell how long a trial takes.
    ended = [t for t in trials if state_of(t, repeated) in ENDED]
    # Without a zone, because Optuna keeps local times without one.
    now = dt.datetime.now()
    ages = [(now - t.datetime_start).total_seconds() for t in running if t.datetime_start]
    durations = [t.duration.total_seconds() for t in ended if t.duration]
    left = left_s(durations, ages, n_open=max(n_total - len(ended) - len(running), 0), slots=slots)
    parts = [f"elapsed {clock(elapsed_s)}"] if elapsed_s is not None else []
    if left and (running or elapsed_s is not None):
        until = now + dt.timedelta(seconds=left)
        parts.append(f"about {clock(left)} left, until {until:%Y-%m-%d %H:%M}")
    return ", ".join(parts)


def _running_table(
    study: Study, trials: list[FrozenTrial], running: list[FrozenTrial], shares: Mapping[str, float]
) -> TrialTable:
    rows = []
    for trial in running[:N_RUNNING]:
        step = trial.last_step
        value = "-" if step is None else f"{trial.intermediate_values[step]:.6g}"
        name = study.trial_folder(trial.number).name
        rows.append((name, "-" if step is None else str(step), value))
    more = [f"{len(running) - N_RUNNING} more running"] if len(running) > N_RUNNING else []
    columns = setting_columns(study, trials, running[:N_RUNNING], shares)
    return TrialTable(("running", "step", "value"), rows, columns, more=more)


def finished_line(study: Study, trial: FrozenTrial, *, state: str, place: str, label: str) -> str:
    """One trial that ended, as one line of plain text."""
    values = f" {values_line(study, trial)}" if values_of(trial) else ""
    infeasible = ", infeasible" if state == "complete" and not is_feasible(trial) else ""
    took = f" ({clock(trial.duration.total_seconds())})" if trial.duration else ""
    why = f": {reason_of(trial)}" if state in ("failed", "retried") else ""
    name = run_id(study, trial.number)
    return f"[{place}] {name} {state}{infeasible}{values}{took} {label}".strip() + why


def clock(seconds: float) -> str:
    """`0:12:03`, `2 days, 1:00:00`; with tenths below ten seconds."""
    return f"{seconds:.1f} s" if seconds < 10 else str(dt.timedelta(seconds=round(seconds)))


def print_progress(study: Study) -> None:
    shares = importances(study)
    view = progress(study, slots=1, n_total=total(study), shares=shares, in_place=False)
    Console(file=sys.stdout, markup=False, highlight=False).print(view)
