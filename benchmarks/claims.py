"""Trials through a study's journal without training: how many a second, and the 500th's cost.

Claim and settle are those of the driver (hft/study/claims.py): lock, reap, ask, parameters, driver
and outcome written, told. Beside them Optuna alone, its journal under the lock it ships with, asked
for the same points by the same samplers and told the same values; and the same in memory. A
sampler's own cost is the time inside its methods, the disk's that inside fsync, both in the same
call.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks import Result
from hft.config.compose import compose, to_plain
from hft.config.groups import read_groups
from hft.search.settings import read_sweep
from hft.space import Dimension, Space, read_space
from hft.study.claims import claim, settle
from hft.study.outcome import Outcome, Status
from hft.study.study import Study, create_study
from hft.study.sweep import SweepSpec, trial_seed
from hft.system.conf import CONF

DRIVER = "benchmark"
BLOCK = 50  # trials of one side before the other's turn: other work changes the disk's speed
FULL = {"n_trials": 1_000, "early": 5, "late": 500, "around": 15}
QUICK = {"n_trials": 200, "early": 5, "late": 100, "around": 5}
ONE = Space((Dimension("optim.lr", low=1e-4, high=1e-2, log=True),))
Point = dict[str, Any]


def measure(*, n_trials: int, early: int, late: int, around: int) -> list[Result]:
    """`early` and `late` are trial numbers; each latency is the median of `around` trials there."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweeps = {kind: read_settings(kind) for kind in ("random", "tpe")}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rate = compare_rates(root, sweeps["random"][0], n_trials)
        found = [
            compare_places(root, *settings, [early, late], around) for settings in sweeps.values()
        ]
    optuna.logging.set_verbosity(verbosity)
    return [rate, *found]


def read_settings(kind: str) -> tuple[SweepSpec, Space]:
    """As `train.py -m sweep=<kind>` composes them: the shipped space."""
    composed = compose([f"sweep={kind}", "sweep.enqueue=[]"], full_tree=True)
    sweep, choices = read_sweep(composed).sweep, dict(composed.hydra.runtime.choices)
    space, _ = read_space(
        sweep.space, [], base=to_plain(composed), choices=choices, known=read_groups(CONF)
    )
    return sweep, space


def begin(folder: Path, sweep: SweepSpec, space: Space) -> Study:
    conf = folder.parent / "conf"
    conf.mkdir(exist_ok=True)
    return create_study(folder, sweep=sweep, space=space, base={}, conf=conf)


def value_of(point: Point) -> float:
    return float(point["optim.lr"])


def through_claims(study: Study, n_trials: int) -> tuple[list[Point], list[float]]:
    """The points, and the seconds that each claim and its settle took together."""
    points, seconds = [], []
    with study.locks.hold(f"driver-{DRIVER}"):
        for _ in range(n_trials):
            started = time.perf_counter()
            taken = claim(study, driver=DRIVER, points=[], total=2**31)
            outcome = Outcome(status=Status.COMPLETE, values=(value_of(taken.params),))
            settle(study, taken.number, outcome)
            seconds.append(time.perf_counter() - started)
            points.append(taken.params)
    return points, seconds


def through_optuna(
    study: optuna.Study, sweep: SweepSpec, space: Space, n: int
) -> tuple[list[Point], list[float]]:
    """The same points by ask and tell alone."""
    points, seconds = [], []
    for _ in range(n):
        number = len(study.get_trials(deepcopy=False))
        started = time.perf_counter()
        study.sampler = sweep.sampler(trial_seed(sweep.seed, number))
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, value_of(points[-1]))
        seconds.append(time.perf_counter() - started)
    return points, seconds


def compare_rates(root: Path, sweep: SweepSpec, n_trials: int) -> Result:
    """Driver and yardstick take turns. One parameter keeps a trial to few lines of the journal."""
    study, yardstick = begin(root / "rate", sweep, ONE), root / "yardstick.log"
    disk = [0.0]
    journal = JournalStorage(JournalFileBackend(str(yardstick)))
    alone = optuna.create_study(storage=journal, direction=sweep.directions()[0])
    points, others, seconds, beside, syncs = [], [], [], [], []
    for start in range(0, n_trials, BLOCK):
        with clocked_disk(disk):
            seconds += add(points, through_claims(study, min(BLOCK, n_trials - start)))
        if start % (2 * BLOCK) == 0:
            beside += add(others, through_optuna(alone, sweep, ONE, min(BLOCK, n_trials - start)))
            syncs += sync_seconds(root / "sync")
    require_same("random", points[: len(others)], others)
    sync_ms = 1e3 * statistics.median(syncs)
    lines = {"claim and settle": study.address.path, "optuna": yardstick}
    counts = {"claim and settle": n_trials, "optuna": len(others)}
    return Result(
        name="claims rate",
        unit="trials/s",
        rates={
            "claim and settle": n_trials / sum(seconds),
            "optuna's journal and lock": len(others) / sum(beside),
            "claim and settle, less the disk": n_trials / (sum(seconds) - sum(disk)),
        },
        expected={"": 100.0},
        data=f"{n_trials:,} trials of one parameter, random sampler, one process, no training; the "
        f"journal's disk synced a line in {sync_ms:.2f} ms (median; {1e3 * min(syncs):.2f} to "
        f"{1e3 * max(syncs):.2f})",
        details={
            "synced_lines_a_trial": {k: round(len(p.read_bytes().splitlines()) / counts[k], 2)
                                     for k, p in lines.items()},
            "sync_ms": round(sync_ms, 3),
            "median_ms_by_block": [round(1e3 * statistics.median(seconds[i : i + BLOCK]), 2)
                                   for i in range(0, n_trials, BLOCK)],
        },
    )  # fmt: skip


def add(points: list[Point], found: tuple[list[Point], list[float]]) -> list[float]:
    points += found[0]
    return found[1]


def sync_seconds(path: Path) -> list[float]:
    """Seconds that the disk alone takes to append and sync a line, a few times."""
    seconds = []
    with path.open("ab", buffering=0) as file:
        for _ in range(5):
            started = time.perf_counter()
            file.write(b"x" * 99 + b"\n")
            os.fsync(file)
            seconds.append(time.perf_counter() - started)
    return seconds


@contextlib.contextmanager
def clocked_disk(spent: list[float]) -> Iterator[None]:
    """Adds the seconds inside fsync to the last of `spent`."""

    def fsync(file: Any) -> None:
        started = time.perf_counter()
        right(file)
        spent[-1] += time.perf_counter() - started

    right = os.fsync
    with patch.object(os, "fsync", fsync):
        yield


class Clocked(optuna.samplers.BaseSampler):
    """A sampler that adds up in `spent` the seconds inside its methods."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, spent: list[float]) -> None:
        self.sampler, self.spent = sampler, spent

    def _timed(self, method: str, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return getattr(self.sampler, method)(*arguments)
        finally:
            self.spent[-1] += time.perf_counter() - started

    def infer_relative_search_space(self, *arguments: Any) -> Any:
        return self._timed("infer_relative_search_space", *arguments)

    def sample_relative(self, *arguments: Any) -> Any:
        return self._timed("sample_relative", *arguments)

    def sample_independent(self, *arguments: Any) -> Any:
        return self._timed("sample_independent", *arguments)

    def before_trial(self, *arguments: Any) -> None:
        self._timed("before_trial", *arguments)

    def after_trial(self, *arguments: Any) -> None:
        self._timed("after_trial", *arguments)


@dataclass
class Place:
    """A study after some random trials, on disk and in memory, and the seconds of later trials."""

    study: Study
    memory: optuna.Study
    claims: list[float] = field(default_factory=list)
    sampler: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def add_trial(self, sweep: SweepSpec, space: Space) -> None:
        self.sampler.append(0.0)
        self.disk.append(0.0)
        clocked = SimpleNamespace(
            seed=sweep.seed, sampler=lambda seed: Clocked(sweep.sampler(seed), self.sampler)
        )
        self.study.sweep = clocked
        with clocked_disk(self.disk):
            points, seconds = through_claims(self.study, 1)
        others, alone = through_optuna(self.memory, sweep, space, 1)
        require_same(sweep.kind, points, others)
        self.claims += seconds
        self.alone += alone


def compare_places(
    root: Path, sweep: SweepSpec, space: Space, places: list[int], around: int
) -> Result:
    """What claim and settle cost beyond sampler and disk at a study's `places`, which take turns
    trial by trial.
    """
    found = {f"{p}th": prepare(root, sweep, space, max(0, p - 1 - around // 2)) for p in places}
    for _ in range(around):
        for place in found.values():
            place.add_trial(sweep, space)
    early, late = (f"{name}, less sampler and disk" for name in found)
    rates = {}
    for name, place in found.items():
        rates |= {
            f"{name}, less sampler and disk": statistics.median(
                np.subtract(place.claims, place.sampler) - place.disk
            ),
            f"{name}, claim and settle": statistics.median(place.claims),
            f"{name}, sampler": statistics.median(place.sampler),
            f"{name}, disk": statistics.median(place.disk),
            f"{name}, ask and tell in memory": statistics.median(place.alone),
        }
    order = sorted(rates, key=lambda side: (side != late, side != early))
    return Result(
        name=f"claims {sweep.kind}",
        unit="ms",
        rates={side: 1e3 * float(rates[side]) for side in order},
        expected={early: 1.25},  # no slower, but for noise
        cost=True,
        data=f"{places[0]}th and {places[1]}th trial, medians of {around} about each, after random "
        f"ones; {len(space.dimensions)} dimensions of conf/sweep/{sweep.kind}.yaml, journal",
    )


def prepare(root: Path, sweep: SweepSpec, space: Space, n: int) -> Place:
    drawn = optuna.create_study(
        direction=sweep.directions()[0], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for _ in range(n):
        trial = drawn.ask()
        drawn.tell(trial, value_of(space.suggest(trial)))
    study = begin(root / f"{sweep.kind}-{n}", sweep, space)
    memory = optuna.create_study(direction=sweep.directions()[0])
    for filled in (memory, study.optuna):
        filled.add_trials(drawn.get_trials())
    return Place(study, memory)


def require_same(kind: str, points: list[Point], others: list[Point]) -> None:
    if points != others:
        raise AssertionError(f"claims: the sides disagree on the points that {kind} gives")
