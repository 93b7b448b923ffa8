"""A sweep through its real driver and local engine: busy slots, time beyond training, data stages.

Trials are those of `train.py -m experiment=smoke sweep=random launcher=local`: composed from a
frozen conf/, claimed in a journal, run by warm workers. For the slots their training is a sleep of
seeded, uneven length, all else as it is; a batch barrier (both slots wait for each other) runs the
same trials through the same driver. Times are the machine's monotonic clock, which driver and
workers share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hft.runs.fold
import hft.search.worker
from benchmarks import Result
from hft.config.overrides import parse_overrides
from hft.runs.folder import Run
from hft.search import command
from hft.search.driver import Driver
from hft.search.launcher import Engine, Function, Future, Where
from hft.search.plan import Plan, make_plan
from hft.search.screen import Live
from hft.study.outcome import Outcome, Status
from hft.study.study import Study, create_study, freeze_conf
from hft.system.conf import CONF

SLOTS = 2
STEADY = 2  # trials before it: they load what a worker keeps
SEED = 0
DAY = (
    "data.end=2024-01-02",
    "bars.size=200",
    "trainer.epochs=1",
)  # a market of a whole day, of 5,000 bars
FULL = {"n_uneven": 12, "longest_s": 3.0, "n_smoke": 7, "day": DAY, "overrides": ()}
QUICK = {
    "n_uneven": 8,
    "longest_s": 1.0,
    "n_smoke": 5,
    "day": ("data.end=2024-01-01T02:00",),
    "overrides": (),
}
Times = dict[str, float]


def measure(
    *,
    n_uneven: int,
    longest_s: float,
    n_smoke: int,
    day: tuple[str, ...],
    overrides: tuple[str, ...],
) -> list[Result]:
    """`day` are the overrides of the larger market, `overrides` those of every trial."""
    sleeps = [longest_s * (0.1 + 0.9 * i / (n_uneven - 1)) for i in range(n_uneven)]
    random.Random(SEED).shuffle(sleeps)
    # What plan, live table and optuna say on the way is no result.
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        root = Path(name)
        plan = build_plan(root, overrides)
        where = Where(root, device="cpu", threads=1, warm=command.WARM)
        with plan.launcher.open(where) as engine:
            warm_up(engine)
            kept = {mode: run_uneven(engine, plan, mode, sleeps) for mode in ("steady", "barrier")}
            smoke = run_trials(engine, plan, "smoke", n_smoke)
            of_day = run_trials(
                engine, dataclasses.replace(plan, fixed=[*plan.fixed, *day]), "day", STEADY + 1
            )
    data = "synthetic, alpha=1, 40 minutes"
    return [
        compare_slots(kept, sleeps),
        split_overhead(
            smoke,
            f"{data}, logger=none, {n_smoke - STEADY} trials after the first {STEADY}, one worker",
        ),
        compare_stages(
            "sweep stages",
            smoke,
            f"{data}, bars of 10 trades, optim.lr varies; an empty cache before",
        ),
        compare_stages(
            "sweep stages, a day", of_day, f"the same with {' '.join(day)}; an empty cache before"
        ),
    ]


class Recorded(Engine):
    """The real engine, which runs `function` for each trial; `notes` has their times, as sent.

    With `barrier` a task counts as done when all that were sent with it are done.
    """

    def __init__(
        self, engine: Engine, function: Function, *, slots: int, barrier: bool = False
    ) -> None:
        self.engine, self.function, self.slots, self.barrier = engine, function, slots, barrier
        self.notes: list[Times] = []
        self.batch: list[Noted] = []
        self.composed: Times = {}
        self.extra: Callable[[int], dict[str, Any]] = lambda number: {}

    def compose(self, compose: Callable[[dict], dict]) -> Callable[[dict], dict]:
        def timed(params: dict) -> dict:
            started = time.monotonic()
            config = compose(params)
            self.composed = {"claimed": started, "composed": time.monotonic()}
            return config

        return timed

    def submit(self, _: Function, task: dict[str, Any]) -> Noted:
        note = dict(self.composed)
        inner = self.engine.submit(self.function, task | self.extra(task["number"]))
        self.notes.append(note)
        if not self.barrier or len(self.batch) == self.slots:
            self.batch = []
        self.batch.append(Noted(inner, note, self.batch))
        return self.batch[-1]

    def wait(self, futures: Sequence[Noted], timeout_s: float) -> None:
        left = [future.inner for future in futures if not future.inner.done()]
        if left and not any(future.done() for future in futures):
            self.engine.wait(left, timeout_s)


class Noted:
    """A future that writes down when its outcome was taken, and what the worker measured."""

    def __init__(self, inner: Future, note: Times, batch: list[Noted]) -> None:
        self.inner, self.note, self.batch = inner, note, batch

    def done(self) -> bool:
        return all(future.inner.done() for future in self.batch)

    def result(self) -> dict[str, Any]:
        outcome = self.inner.result()
        self.note |= outcome.pop("times", {}) | {"landed": time.monotonic()}
        return outcome

    def cancel(self) -> None:
        self.inner.cancel()


def timed_trial(task: dict[str, Any]) -> dict[str, Any]:
    """In the worker: a trial as it is, with the times of its one fit."""
    began, fits = time.monotonic(), []

    def fit(*arguments: Any, **named: Any) -> Any:
        started = time.monotonic()
        result = right(*arguments, **named)
        fits.append((started, time.monotonic()))
        return result

    right = hft.runs.fold.fit
    with patch.object(hft.runs.fold, "fit", fit):
        outcome = hft.search.worker.run_trial(task)
    ((started, stopped),) = fits or [(began, began)]
    times = {"began": began, "fit": started, "fitted": stopped, "ended": time.monotonic()}
    return outcome | {"times": times}


def sleeping_trial(task: dict[str, Any]) -> dict[str, Any]:
    """In the worker: a trial that sleeps instead of training; all else is real."""
    began, sleep_s = time.monotonic(), task.pop("sleep_s")

    def train(*_: Any) -> Outcome:
        time.sleep(sleep_s)
        return Outcome(status=Status.COMPLETE, values=(sleep_s,))

    with patch.object(hft.search.worker, "_train", train):
        outcome = hft.search.worker.run_trial(task)
    return outcome | {"times": {"began": began, "ended": time.monotonic()}}


def ready(task: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.2)  # so that no worker takes two
    return task


def build_plan(root: Path, overrides: tuple[str, ...]) -> Plan:
    folders = [f"paths.{name}={root / name}" for name in ("runs", "sweeps", "cache")]
    arguments = [
        "experiment=smoke",
        "logger=none",
        "trainer.progress=false",
        "trainer.threads=1",
        "launcher=local",
        f"launcher.workers={SLOTS}",
        "sweep=random",
        "sweep.space=null",
        "sweep.enqueue=[]",
        f"sweep.seed={SEED}",
        "optim.lr=tag(log,interval(1e-4,1e-2))",
    ]
    conf = freeze_conf(CONF, root / "conf")
    return make_plan(parse_overrides([*arguments, *folders, *overrides]), conf)


def warm_up(engine: Engine) -> None:
    futures = [engine.submit(ready, {}) for _ in range(engine.slots)]
    for future in futures:
        future.result()


def run_uneven(engine: Engine, plan: Plan, mode: str, sleeps: list[float]) -> list[Times]:
    recorded = Recorded(engine, sleeping_trial, slots=engine.slots, barrier=mode == "barrier")
    recorded.extra = lambda number: {"sleep_s": sleeps[number]}
    study = drive(recorded, plan, mode, len(sleeps))
    if sorted(trial.value for trial in study.trials()) != sorted(sleeps):
        raise AssertionError(f"sweep: not all of the {len(sleeps)} trials of {mode} ran, each once")
    return recorded.notes


def run_trials(engine: Engine, plan: Plan, name: str, n_trials: int) -> list[Times]:
    """Runs trials one after the other in one worker; `stages_s` is what the run itself logs."""
    recorded = Recorded(engine, timed_trial, slots=1)
    study = drive(recorded, plan, name, n_trials)
    for number, note in enumerate(recorded.notes):
        note["stages_s"] = Run(study.trial_folder(number)).read_metrics()["train/stages_s"]
    return recorded.notes


def drive(recorded: Recorded, plan: Plan, name: str, n_trials: int) -> Study:
    root, conf = Path(plan.config.paths.sweeps), Path(plan.config.paths.sweeps).parent / "conf"
    study = create_study(root / name, sweep=plan.sweep, space=plan.space, base=plan.base, conf=conf)
    compose = recorded.compose(command.composer(study, plan))
    with Live(study, slots=recorded.slots, n_total=n_trials) as live:
        Driver(study, recorded, compose=compose, points=[], total=n_trials, screen=live).run()
    if study.counts().complete != n_trials:
        reasons = {trial.user_attrs.get("reason") for trial in study.trials()}
        raise AssertionError(
            f"sweep: not all of the {n_trials} trials of {name} were completed: {reasons}"
        )
    return study


def compare_slots(kept: dict[str, list[Times]], sleeps: list[float]) -> Result:
    """Measures from the first trial's start to the last one's; later a free slot gets no trial."""
    steady, n = kept["steady"], len(sleeps)
    window = steady[-1]["began"] - steady[0]["began"]
    composing = sum(note["composed"] - note["claimed"] for note in steady[SLOTS:])
    return Result(
        name="sweep slots",
        unit="% busy",
        rates={"steady state": 100 * busy(steady), "batch barrier": 100 * busy(kept["barrier"])},
        expected={"": 95.0},
        data=f"{n} trials of {min(sleeps):.2f} to {max(sleeps):.2f} s (mean "
        f"{statistics.mean(sleeps):.2f}), seed {SEED}, on {SLOTS} slots; busy: a worker is inside "
        "of a trial, between the starts of the first and the last",
        details={
            "makespan_s": {mode: round(max(x["ended"] for x in notes) - notes[0]["began"], 3)
                           for mode, notes in kept.items()},
            "composing_percent_of_slot_time": round(100 * composing / (SLOTS * window), 2),
            "idle_ms_a_trial": round(1e3 * (1 - busy(steady)) * SLOTS * window / (n - SLOTS), 1),
        },
    )  # fmt: skip


def busy(notes: list[Times]) -> float:
    first, last = min(note["began"] for note in notes), max(note["began"] for note in notes)
    inside = sum(min(note["ended"], last) - note["began"] for note in notes)
    return inside / (SLOTS * (last - first))


def split_overhead(notes: list[Times], data: str) -> Result:
    """The time from the end of one trial to the end of the next, less that of the fit, by part.

    The parts of one trial add up to the whole; their medians need not.
    """
    parts: dict[str, list[float]] = {}
    for before, note in list(itertools.pairwise(notes))[STEADY - 1 :]:
        fit_s, stages_s = note["fitted"] - note["fit"], note["stages_s"]
        spent = {
            "beyond training": note["ended"] - before["ended"] - fit_s,
            "settle and claim": note["claimed"] - before["landed"],
            "compose": note["composed"] - note["claimed"],
            "there and back": before["landed"] - before["ended"] + note["began"] - note["composed"],
            "data stages": stages_s,
            "else before the fit": note["fit"] - note["began"] - stages_s,
            "after the fit": note["ended"] - note["fitted"],
            "(training)": fit_s,
        }
        for name, seconds in spent.items():
            parts.setdefault(name, []).append(1e3 * seconds)
    return Result(
        name="sweep overhead",
        unit="ms a trial",
        rates={name: statistics.median(values) for name, values in parts.items()},
        expected={"": 300.0},
        cost=True,
        data=data,
        details={
            "by_trial_ms": {
                name: [round(value, 1) for value in values] for name, values in parts.items()
            }
        },
    )


def compare_stages(name: str, notes: list[Times], data: str) -> Result:
    stages = [1e3 * note["stages_s"] for note in notes]
    return Result(
        name=name,
        unit="ms",
        rates={
            "second trial": stages[1],
            "first trial": stages[0],
            "later trials": statistics.median(stages[2:]),
        },
        expected={"": 100.0},
        cost=True,
        data=f"train/stages_s, {data}",
        details={"by_trial_ms": [round(value, 2) for value in stages]},
    )
