"""A grid over `seed=`: its trials averaged per point, for a point that wins by its seed is no find.

In: a Study. Out: points, best first by their mean, and `points_frame` with mean and deviation.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import polars as pl

from hft.study.trials import column, complete_trials, numbers_of, params_of, shown_of, values_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

SEED = "seed"


@dataclass(frozen=True)
class Point:
    """Complete trials that differ in their seed only."""

    params: dict[str, Any]  # without the seed
    trials: list[FrozenTrial]


def points_over_seeds(study: Study) -> list[Point]:
    """[] where the study is no grid over several seeds."""
    seeds = [d for d in study.space.dimensions if d.path == SEED and len(d.choices or ()) > 1]
    # A search hardly ever draws one point with several seeds, so that there is nothing to average.
    if study.sweep.kind != "grid" or not seeds:
        return []
    points: dict[str, Point] = {}
    # A failed seed is no part of the mean: `trials` tells how many seeds are.
    for trial in complete_trials(study):
        params = {name: value for name, value in params_of(trial).items() if name != SEED}
        key = json.dumps(params, sort_keys=True)
        points.setdefault(key, Point(params, [])).trials.append(trial)
    sign = 1 if study.optuna.directions[0].name == "MINIMIZE" else -1
    return sorted(points.values(), key=lambda p: sign * fmean(values_of(t)[0] for t in p.trials))


def spread(study: Study, point: Point, name: str) -> tuple[float | None, float | None]:
    """Mean and standard deviation (ddof 1) of a number over the seeds; None where a trial lacks it,
    and no deviation of a single trial.
    """
    values = [numbers_of(study, trial).get(name) for trial in point.trials]
    known = [v for v in values if v is not None and math.isfinite(v)]
    # A mean over those seeds that happen to have a value would compare points by different seeds.
    if len(known) < len(values):
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None


def points_frame(study: Study) -> pl.DataFrame:
    """One row per point, best first: its parameters, `trials`, and of each number the mean and
    `<name>/sd`; no column where there are no points.
    """
    points = points_over_seeds(study)
    if not points:
        return pl.DataFrame()
    paths = dict.fromkeys(name for point in points for name in point.params)
    columns = [column(path, [point.params.get(path) for point in points]) for path in paths]
    columns.append(pl.Series("trials", [len(point.trials) for point in points], dtype=pl.Int64))
    trials = [trial for point in points for trial in point.trials]
    for name in [*study.sweep.objectives, *shown_of(study, trials)]:
        found = [spread(study, point, name) for point in points]
        columns.append(pl.Series(name, [mean for mean, _ in found], dtype=pl.Float64))
        columns.append(pl.Series(f"{name}/sd", [sd for _, sd in found], dtype=pl.Float64))
    return pl.DataFrame(columns)
