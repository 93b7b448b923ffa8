"""The tables of a study in the terminal: its results, best first, and the lines to paste.

In: a Study. Out: rich tables that fit their width with every digit. Whatever users or trials wrote
is shown as it stands: nothing in it is read as markup.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hft.study.points import SEED, points_over_seeds, spread
from hft.study.shown import heading
from hft.study.trials import (
    Labels,
    brief,
    importances,
    is_feasible,
    next_lines,
    numbers_of,
    params_of,
    printable,
    ranked,
    run_id,
    shown_of,
    state_of,
    values_of,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.space import Dimension
    from hft.study.study import Study

N_RESULTS = 20  # rows of a table at the end; the parquet files have all
N_BEST = 5  # of a Pareto front
N_METRICS = 5  # metrics that stand before the settings: scores and the strategy's own net return
LONGEST_NAME = 24  # of a study: a longer one would leave no room beside the run's id
LONGEST_CELL = 18  # characters of a setting
LEAST_OVERRIDES = 24  # characters of a line of overrides
GAP = 2  # between columns


@dataclass
class Column:
    """A metric or a setting of the trials in a table, and the cells of its rows."""

    path: str
    short: str
    is_number: bool
    cells: list[str]

    def width(self, name: str) -> int:
        return max(map(len, [name, *self.cells]))


@dataclass
class TrialTable:
    """Facts of trials, then as many `columns` as a line holds, the first ones first, then
    `overrides`, which fold. It is made to measure whenever it is shown: terminals change their
    width.
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    columns: list[Column] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)  # what else there is
    where: str = ""  # and in which file

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # The box adds one more to the padding.
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for k, (name, width) in enumerate(zip(self.header, self._fact_widths(), strict=True)):
            # A long heading folds before a digit is lost.
            side = _side(right=k > 0 and name != "")
            table.add_column(name, min_width=width, overflow="fold", justify=side)
        kept = self._fitting(options.max_width)
        for column, name in kept:
            table.add_column(Text(name), no_wrap=True, justify=_side(right=column.is_number))
        if self.overrides:
            table.add_column("overrides", overflow="fold")
        for k, facts in enumerate(self.rows):
            cells = [*(column.cells[k] for column, _ in kept), *self.overrides[k : k + 1]]
            table.add_row(*(Text(cell) for cell in (*facts, *cells)))
        yield table
        left_out = len(self.columns) - len(kept)
        more = [*self.more, *([f"{left_out} more columns"] if left_out else [])]
        if more:
            yield Text(f"and {' and '.join(more)}{self.where}", overflow="fold")

    def _fact_widths(self) -> list[int]:
        return [max(map(len, cells), default=0) for cells in zip(*self.rows, strict=True)] or [
            0 for _ in self.header
        ]

    def _fitting(self, width: int) -> list[tuple[Column, str]]:
        """Columns with their names, which are whole paths where all columns fit so."""
        facts = [max(len(n), w) for n, w in zip(self.header, self._fact_widths(), strict=True)]
        room = width - sum(facts) - GAP * len(facts)
        if self.overrides:
            # Overrides fold, and columns do not: so columns get what is left beside a few words.
            room -= min(max(map(len, self.overrides)), max(LEAST_OVERRIDES, width // 3)) + GAP
        if sum(c.width(c.path) + GAP for c in self.columns) <= room:
            return [(c, c.path) for c in self.columns]
        kept = []
        for column in self.columns:
            needed = column.width(column.short) + GAP
            if needed <= room:
                kept.append((column, column.short))
                room -= needed
        return kept


def _side(*, right: bool) -> Literal["left", "right"]:
    return "right" if right else "left"


def print_results(study: Study, *, console: Console | None = None) -> None:
    """The best trials with their values, metrics and what tells them apart; then the means over
    seeds; the last line is the one to paste.
    """
    rows, best = ranked(study), study.best()
    out = console or Console(markup=False, highlight=False)
    s = "s" * (len(rows) != 1)
    noun = f"run{s}" if study.sweep.kind == "grid" else f"trial{s} of {study.name}"
    title = f"{len(rows)} {noun} by {printable(' and '.join(study.sweep.objectives))}"
    out.print(Text(title, style="italic"))  # a table's own title is cut to the table's width
    out.print(_results_table(study, rows))
    _print_points(study, out)
    for trial in best[1:N_BEST][::-1] if len(best) > 1 else []:
        name = run_id(study, trial.number)
        out.file.write(f"also on the Pareto front: run={name} {values_line(study, trial)}\n")
    if best:
        name, following = run_id(study, best[0].number), next_lines(study, best[0])[0]
        # Written past rich, which would fold the line that is to be pasted.
        out.file.write(f"best: run={name} {values_line(study, best[0])}  next: {following}\n")
    elif rows:
        out.file.write(f"no best: {_no_best(rows)}\n")
    out.file.flush()


def _no_best(rows: list[FrozenTrial]) -> str:
    n = sum(t.state.name == "COMPLETE" for t in rows)
    return f"none of {n} complete trials keeps the constraints" if n else "no trial was completed"


def _results_table(study: Study, rows: list[FrozenTrial]) -> TrialTable:
    shown, is_grid = rows[:N_RESULTS], study.sweep.kind == "grid"
    states = [_shown_state(t) for t in rows]
    names = study.sweep.objectives if len(study.sweep.objectives) > 1 else ("value",)
    facts = []
    for trial, state in zip(shown, states, strict=False):
        with_name = is_grid and len(study.name) <= LONGEST_NAME
        name = run_id(study, trial.number) if with_name else study.trial_folder(trial.number).name
        values = [f"{v:.6g}" for v in values_of(trial)] or ["-"] * len(names)
        facts.append((name, *values, *([state] if any(states) else [])))
    metrics = _metric_columns(study, rows, shown)
    shares = {} if is_grid else importances(study)
    settings = [] if is_grid else setting_columns(study, rows, shown, shares)
    labels = Labels(study, rows)
    noun = "runs" if is_grid else "trials"
    return TrialTable(
        ("run", *(short_name(name, names) for name in names), *([""] if any(states) else [])),
        facts,
        [*metrics[:N_METRICS], *settings, *metrics[N_METRICS:]],
        [labels(t) for t in shown] if is_grid else [],
        more=[f"{len(rows) - len(shown)} more {noun}"] if len(rows) > len(shown) else [],
        where=" in results.parquet",
    )


def _print_points(study: Study, out: Console) -> None:
    """What a grid over `seed=` comes to, per point; nothing for other studies."""
    points, names = points_over_seeds(study), study.sweep.objectives
    if not points:
        return
    shown = points[:N_RESULTS]
    rows = []
    for point in shown:
        found = [spread(study, point, name) for name in names]
        cells = [(brief_number(mean), brief_number(sd)) for mean, sd in found]
        rows.append((str(len(point.trials)), *(cell for pair in cells for cell in pair)))
    trials = [trial for point in points for trial in point.trials]
    columns = [
        _metric_column(name, [spread(study, point, name)[0] for point in shown])
        for name in shown_of(study, trials)
    ]
    labels = Labels(study, [point.trials[0] for point in points], without=SEED)
    shorts = [short_name(name, names) if len(names) > 1 else "mean" for name in names]
    out.print(Text(f"{len(points)} point{'s' * (len(points) > 1)}, over seeds", style="italic"))
    out.print(
        TrialTable(
            ("seeds", *(heading for short in shorts for heading in (short, "sd"))),
            rows,
            columns,
            [labels(point.trials[0]) for point in shown],
            more=[f"{len(points) - len(shown)} more points"] if len(points) > len(shown) else [],
            where=" in points.parquet",
        )
    )


def _metric_columns(
    study: Study, trials: list[FrozenTrial], shown: list[FrozenTrial]
) -> list[Column]:
    numbers = [numbers_of(study, trial) for trial in shown]
    return [
        _metric_column(name, [n.get(name) for n in numbers]) for name in shown_of(study, trials)
    ]


def _metric_column(name: str, values: Sequence[float | None]) -> Column:
    short = heading(name)
    return Column(short, short, True, [brief_number(value) for value in values])


def brief_number(value: float | None) -> str:
    """Four decimals of a score, four digits of a small one, whole basis points of large returns."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == round(value) or 1e4 <= size < 1e9:
        return f"{value:.0f}" if size < 1e9 else f"{value:.4g}"
    if size >= 10:
        return f"{value:.2f}" if size < 1e4 else f"{value:.4g}"
    return f"{value:.4f}" if size >= 0.1 else f"{value:.4g}"


def setting_columns(
    study: Study, trials: list[FrozenTrial], shown: list[FrozenTrial], shares: Mapping[str, float]
) -> list[Column]:
    """The dimensions in which `trials` differ, or all when there is one trial only; important ones
    first.
    """
    dimensions = study.space.dimensions
    lasts = Counter(d.path.rpartition(".")[2] for d in dimensions)
    given = [params_of(t) for t in trials]

    def varies(dimension: Dimension) -> bool:
        # By `repr`, because True, 1 and 1.0 are equal.
        return len(given) == 1 or len({repr(params.get(dimension.path)) for params in given}) > 1

    def make(d: Dimension) -> Column:
        last = d.path.rpartition(".")[2]
        cells = [_cell(d, params_of(t)) for t in shown]
        return Column(d.path, last if lasts[last] == 1 else d.path, d.choices is None, cells)

    columns = (make(d) for d in dimensions if varies(d))
    return sorted(columns, key=lambda column: -shares.get(column.path, 0.0))


def _cell(dimension: Dimension, params: dict[str, Any]) -> str:
    if dimension.path not in params:
        return ""
    text = printable(brief(dimension, params[dimension.path]))
    if dimension.texts and "" in dimension.texts:  # a column of features, switched on and off
        text = "on" if text == "" else "off"
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def _shown_state(trial: FrozenTrial) -> str:
    state = state_of(trial, set())
    return state if state != "complete" else "" if is_feasible(trial) else "infeasible"


def short_name(objective: str, objectives: Sequence[str]) -> str:
    """`net_bps_day` of `select/net_bps_day@vip0`, where no other objective is called so."""
    names = [name.rpartition("/")[2].partition("@")[0] for name in objectives]
    short = names[list(objectives).index(objective)]
    return short if names.count(short) == 1 else objective


def values_line(study: Study, trial: FrozenTrial) -> str:
    """`select/log_loss=0.5` for each objective."""
    values = zip(study.sweep.objectives, values_of(trial), strict=False)
    return printable(" ".join(f"{name}={value:.6g}" for name, value in values))


def print_best(study: Study) -> bool:
    """Each best trial with the lines to paste; False where there is none."""
    best = study.best()
    for trial in best:
        sys.stdout.write(f"run={run_id(study, trial.number)} {values_line(study, trial)}\n")
        sys.stdout.writelines(f"  {printable(line)}\n" for line in next_lines(study, trial))
    return bool(best)
