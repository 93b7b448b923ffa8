"""A study in the terminal: how far it is, the lines of finished trials, and the table at its end,
best first.

In: a Study. Out: rich tables that fit 80 columns, plain text elsewhere. Whatever users or trials
wrote is shown as it stands: nothing in it is read as markup.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from hft.study.trials import (
    ENDED,
    Labels,
    brief,
    importances,
    is_feasible,
    next_lines,
    params_of,
    printable,
    ranked,
    reason_of,
    retried,
    run_id,
    state_of,
    total,
    values_of,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.space import Dimension
    from hft.study.study import Study

N_RESULTS = 20  # rows of the table at the end; results.parquet has all
N_RUNNING = 12  # rows of running trials: a screen
N_BEST = 5  # of a Pareto set
LONGEST_NAME = 24  # of a study: a longer one would leave no room beside the run's id
LONGEST_CELL = 18  # characters of a setting
GAP = 2  # between columns


def left_s(
    durations: Sequence[float], ages: Sequence[float], *, n_open: int, slots: int
) -> float | None:
    """Seconds until the last trial ends if no slot ever waits and trials last as long as those so
    far; None unknown.

    `ages` are of the running trials, `n_open` counts those not begun.
    """
    if not durations:
        return None if n_open or ages else 0.0
    mean = sum(durations) / len(durations)
    rests = [max(mean - age, 0.0) for age in ages]
    return max([(n_open * mean + sum(rests)) / max(slots, len(ages), 1), *rests])


def progress(
    study: Study,
    *,
    slots: int,
    n_total: int,
    shares: Mapping[str, float],
    elapsed_s: float | None = None,
) -> Group:
    """The state of the sweep: counts, best, time, the running trials; `shares` are importances, {}
    as long as none.
    """
    trials = study.trials()
    repeated = retried(trials)
    running = [t for t in trials if t.state.name == "RUNNING"]
    lines = [
        _counts_line(study, n_total),
        *_best_lines(study),
        *_failure_lines(study, trials, repeated),
    ]
    lines.append(_time_line(trials, repeated, n_total=n_total, slots=slots, elapsed_s=elapsed_s))
    shown = [Text(line, overflow="fold") for line in lines if line]
    return Group(*shown, *([_running_table(study, trials, running, shares)] if running else []))


def _counts_line(study: Study, n_total: int) -> str:
    counts = study.counts()
    done = counts.complete + counts.pruned + counts.failed
    parts = [f"{counts.complete} complete", f"{counts.pruned} pruned", f"{counts.failed} failed"]
    parts += [f"{counts.retried} retried", f"{counts.running} running"]
    parts += [f"{counts.waiting} waiting"] if counts.waiting else []
    return f"{study.name}: {done} of {n_total} done ({', '.join(parts)})"


def _best_lines(study: Study) -> list[str]:
    best = study.best()
    lines = [f"best {_values(study, t)}  {run_id(study, t.number)}" for t in best[:N_BEST]]
    return (
        [*lines, f"and {len(best) - N_BEST} more on the Pareto front"]
        if len(best) > N_BEST
        else lines
    )


def _failure_lines(study: Study, trials: list[FrozenTrial], repeated: set[int]) -> list[str]:
    failed = [t for t in trials if state_of(t, repeated) == "failed"]
    return (
        [f"last failure {run_id(study, failed[-1].number)}: {reason_of(failed[-1])}"]
        if failed
        else []
    )


def _time_line(
    trials: list[FrozenTrial],
    repeated: set[int],
    *,
    n_total: int,
    slots: int,
    elapsed_s: float | None,
) -> str:
    running = [t for t in trials if t.state.name == "RUNNING"]
    ended = [t for t in trials if state_of(t, repeated) in ENDED]
    now = dt.datetime.now()
    ages = [(now - t.datetime_start).total_seconds() for t in running if t.datetime_start]
    durations = [t.duration.total_seconds() for t in ended if t.duration]
    left = left_s(durations, ages, n_open=max(n_total - len(ended) - len(running), 0), slots=slots)
    parts = [f"elapsed {clock(elapsed_s)}"] if elapsed_s is not None else []
    if left and (running or elapsed_s is not None):
        parts.append(
            f"about {clock(left)} left, until {now + dt.timedelta(seconds=left):%Y-%m-%d %H:%M}"
        )
    return ", ".join(parts)


def _running_table(
    study: Study, trials: list[FrozenTrial], running: list[FrozenTrial], shares: Mapping[str, float]
) -> TrialTable:
    rows = []
    for trial in running[:N_RUNNING]:
        step = trial.last_step
        value = "-" if step is None else f"{trial.intermediate_values[step]:.6g}"
        rows.append(
            (study.trial_folder(trial.number).name, "-" if step is None else str(step), value)
        )
    more = [f"{len(running) - N_RUNNING} more running"] if len(running) > N_RUNNING else []
    settings = _settings(study, trials, running[:N_RUNNING], shares)
    return TrialTable(("running", "step", "value"), rows, settings, [], more, where="")


def finished_line(study: Study, trial: FrozenTrial, *, state: str, place: str, label: str) -> str:
    """One trial that ended, as one line of plain text."""
    values = f" {_values(study, trial)}" if values_of(trial) else ""
    infeasible = ", infeasible" if state == "complete" and not is_feasible(trial) else ""
    took = f" ({clock(trial.duration.total_seconds())})" if trial.duration else ""
    what = f": {reason_of(trial)}" if state in ("failed", "retried") else ""
    parts = (
        f"[{place}] {run_id(study, trial.number)} {state}{infeasible}{values}{took} {label}".strip()
    )
    return parts + what


def print_results(study: Study, *, console: Console | None = None) -> None:
    """The best trials with what tells them apart and their values; the last line is the one to
    paste.
    """
    rows, best = ranked(study), study.best()
    out = console or Console(markup=False, highlight=False)
    s = "s" * (len(rows) != 1)
    noun = f"run{s}" if study.sweep.kind == "grid" else f"trial{s} of {study.name}"
    title = f"{len(rows)} {noun} by {printable(' and '.join(study.sweep.objectives))}"
    out.print(Text(title, style="italic"))  # a table's own title is cut to the table's width
    out.print(_results_table(study, rows))
    for trial in best[1:N_BEST][::-1] if len(best) > 1 else []:
        out.file.write(
            f"also on the Pareto front: run={run_id(study, trial.number)} {_values(study, trial)}\n"
        )
    if best:
        following = next_lines(study, best[0])[0]
        out.file.write(
            f"best: run={run_id(study, best[0].number)} {_values(study, best[0])}  next: {following}\n"
        )
    elif rows:
        out.file.write(f"no best: {_no_best(rows)}\n")
    out.file.flush()


def _no_best(rows: list[FrozenTrial]) -> str:
    complete = [t for t in rows if t.state.name == "COMPLETE"]
    return (
        f"none of {len(complete)} complete trials keeps the constraints"
        if complete
        else "no trial was completed"
    )


def _results_table(study: Study, rows: list[FrozenTrial]) -> TrialTable:
    is_grid, states = study.sweep.kind == "grid", [_shown_state(t) for t in rows]
    names = study.sweep.objectives if len(study.sweep.objectives) > 1 else ("value",)
    facts = []
    for trial, state in list(zip(rows, states, strict=True))[:N_RESULTS]:
        with_name = is_grid and len(study.name) <= LONGEST_NAME
        name = run_id(study, trial.number) if with_name else study.trial_folder(trial.number).name
        values = [f"{v:.6g}" for v in values_of(trial)] or ["-"] * len(names)
        facts.append((name, *values, *([state] if any(states) else [])))
    labels, shares = Labels(study, rows), {} if is_grid else importances(study)
    settings = [] if is_grid else _settings(study, rows, rows[:N_RESULTS], shares)
    overrides = [labels(t) for t in rows[:N_RESULTS]] if is_grid else []
    more = (
        [f"{len(rows) - N_RESULTS} more {'runs' if is_grid else 'trials'}"]
        if len(rows) > N_RESULTS
        else []
    )
    header = ("run", *(_short(name, names) for name in names), *([""] if any(states) else []))
    return TrialTable(header, facts, settings, overrides, more, where=" in results.parquet")


@dataclass
class Setting:
    """One dimension as a column: how its values read in the rows of a table."""

    path: str
    short: str
    is_number: bool
    cells: list[str]

    def width(self, name: str) -> int:
        return max(map(len, [name, *self.cells]))


def _settings(
    study: Study, trials: list[FrozenTrial], shown: list[FrozenTrial], shares: Mapping[str, float]
) -> list[Setting]:
    """Of the dimensions in which `trials` differ, or of all when there is one trial only; important
    ones first.
    """
    dimensions = study.space.dimensions
    lasts = Counter(d.path.rpartition(".")[2] for d in dimensions)
    given = [params_of(t) for t in trials]

    def varies(dimension: Dimension) -> bool:
        return len(given) == 1 or len({repr(params.get(dimension.path)) for params in given}) > 1

    def make(d: Dimension) -> Setting:
        last = d.path.rpartition(".")[2]
        cells = [_cell(d, params_of(t)) for t in shown]
        return Setting(d.path, last if lasts[last] == 1 else d.path, d.choices is None, cells)

    return sorted(
        (make(d) for d in dimensions if varies(d)), key=lambda s: -shares.get(s.path, 0.0)
    )


def _cell(dimension: Dimension, params: dict) -> str:
    if dimension.path not in params:
        return ""
    text = printable(brief(dimension, params[dimension.path]))
    if dimension.texts and "" in dimension.texts:  # a column of features, switched on and off
        text = "on" if text == "" else "off"
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


@dataclass
class TrialTable:
    """Facts of trials, and as many of their settings as a line holds, the first ones first; or all
    `overrides`, which fold. Made to measure whenever it is shown: terminals change their width.
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    settings: list[Setting]
    overrides: list[str]
    more: list[str]  # what else there is
    where: str  # and in which file

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0)
        )  # the box has one more
        for k, name in enumerate(self.header):
            table.add_column(name, no_wrap=True, justify="right" if k > 0 and name else "left")
        kept = self._fitting(options.max_width)
        for setting, name in kept:
            table.add_column(
                Text(name), no_wrap=True, justify="right" if setting.is_number else "left"
            )
        if self.overrides:
            table.add_column("overrides", overflow="fold")
        for k, facts in enumerate(self.rows):
            cells = [*(setting.cells[k] for setting, _ in kept), *self.overrides[k : k + 1]]
            table.add_row(*(Text(cell) for cell in (*facts, *cells)))
        yield table
        left_out = (
            [f"{len(self.settings) - len(kept)} more settings"]
            if len(kept) < len(self.settings)
            else []
        )
        if below := [*self.more, *left_out]:
            yield Text(f"and {' and '.join(below)}{self.where}", overflow="fold")

    def _fitting(self, width: int) -> list[tuple[Setting, str]]:
        """With their names: whole paths where all fit so."""
        facts = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        room = width - sum(facts) - GAP * len(facts)
        if sum(s.width(s.path) + GAP for s in self.settings) <= room:
            return [(s, s.path) for s in self.settings]
        kept = []
        for setting in self.settings:
            needed = setting.width(setting.short) + GAP
            if needed <= room:
                kept.append((setting, setting.short))
                room -= needed
        return kept


def _shown_state(trial: FrozenTrial) -> str:
    state = state_of(trial, set())
    return state if state != "complete" else "" if is_feasible(trial) else "infeasible"


def _short(objective: str, objectives: Sequence[str]) -> str:
    """`net_bps_day` of `select/net_bps_day@vip0`, which the title has in full, where no other is
    called so.
    """
    names = [name.rpartition("/")[2].partition("@")[0] for name in objectives]
    short = names[list(objectives).index(objective)]
    return short if names.count(short) == 1 else objective


def _values(study: Study, trial: FrozenTrial) -> str:
    return printable(
        " ".join(
            f"{n}={v:.6g}" for n, v in zip(study.sweep.objectives, values_of(trial), strict=False)
        )
    )


def clock(seconds: float) -> str:
    """`0:12:03`, `2 days, 1:00:00`; with tenths below ten seconds."""
    return f"{seconds:.1f} s" if seconds < 10 else str(dt.timedelta(seconds=round(seconds)))


def print_progress(study: Study) -> None:
    view = progress(study, slots=1, n_total=total(study), shares=importances(study))
    Console(file=sys.stdout, markup=False, highlight=False).print(view)


def print_best(study: Study) -> bool:
    """Each best trial with the lines to paste; False where there is none."""
    best = study.best()
    for trial in best:
        sys.stdout.write(f"run={run_id(study, trial.number)} {_values(study, trial)}\n")
        sys.stdout.writelines(f"  {printable(line)}\n" for line in next_lines(study, trial))
    return bool(best)
