"""One trial of a sweep, in the worker that an engine gave it: a Task in, an Outcome out, a run
folder in between.

The worker reports values through the study's storage, and leaves it to the driver to end the trial.
It also stores the outcome as the trial's attribute `outcome`, so that the death of a driver loses
nothing. While a trial runs, its worker holds the lease `trial-<number>`; what the trial prints is
in its folder's `log.txt`. torch and Optuna are imported when a trial begins.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SerializeAsAny

from hft.runs.folder import Run, RunError
from hft.runs.registry import create_trial
from hft.spec import Room, Spec, UserError, did_you_mean, parse
from hft.study.outcome import Outcome, Status
from hft.study.shown import shown_metrics
from hft.study.storage import Locks, StorageError, read_address
from hft.study.sweep import Bound, SweepSpec
from hft.system.files import FileError, writable
from hft.system.provenance import code_hash

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hft.config.configs import TrainConfig
    from hft.dataset.stages import Last, Market

LOG = "log.txt"
# The fault of the disk and not of the trial, which is tried again.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Refused(UserError):
    """A trial that this worker must leave alone."""


class Task(Spec):
    """What the driver asks of a worker."""

    study: str
    storage: str = Field(description="the text of an Address; no password")
    folder: str = Field(description="the study's")
    number: int = Field(ge=0, description="the trial's")
    config: dict[str, Any] = Field(description="TrainConfig.plain()")
    sweep: Annotated[SweepSpec, SerializeAsAny(), Room("hft.study.sweep")]
    code: str = Field(description="hash of the code that the study began with")
    driver: str = Field(description="the driver whose lease the trial needs")
    continue_from: int | None = Field(
        ge=0, description="the trial whose worker died, of which this one is a copy that goes on"
    )
    echo: bool = Field(description="print to where the worker prints, instead of the log")


def run_trial(task: dict[str, Any]) -> dict[str, Any]:
    """Runs a Task and gives its Outcome, both plain, as engines send them."""
    return _run(parse(Task, task)).plain()


def _run(asked: Task) -> Outcome:
    try:
        address = read_address(asked.storage, Path(asked.folder))
        locks, lease = address.locks(), f"trial-{asked.number}"
        # `hold` would wait until the other worker is done.
        if locks.is_held(lease):
            raise Refused(f"trial {asked.number}: another worker is at it")
        with locks.hold(lease):
            trial = open_trial(address.open(), asked)
            # Checked under the lease: from here on no driver takes the trial for an orphan.
            _check_may_begin(asked, trial, locks)
            source = _find_progress(trial, Path(asked.folder), asked.continue_from)
            run = _take_folder(asked, source)
            # From here on a death counts (hft/study/claims.py).
            trial.set_user_attr("host", platform.node())
            with contextlib.nullcontext() if asked.echo else redirected(run.folder / LOG):
                outcome = _attempt(asked, trial, run, source)
                _store(trial, outcome)
    except Exception as error:  # those of the training are in its outcome already
        if isinstance(error, Refused) or is_outside(error):
            return Outcome(status=Status.REFUSED, reason=str(error))
        raise
    return outcome


def is_outside(error: BaseException) -> bool:
    """Whether the trial is not to blame: a storage gives no answer, or a disk takes nothing."""
    from optuna.exceptions import StorageInternalError

    full = isinstance(error, OSError) and error.errno in NO_ROOM
    return full or isinstance(error, StorageError | StorageInternalError | FileError)


def _take_folder(asked: Task, source: Path | None) -> Run:
    try:
        return create_trial(Path(asked.folder), asked.number, copy_of=source)
    except RunError as error:
        raise Refused(str(error)) from None


def open_trial(storage: optuna.storages.BaseStorage, asked: Task) -> optuna.Trial:
    """The driver's trial, to report to. Nobody asks it for parameters, so its sampler is the
    cheapest.
    """
    import optuna

    from hft.study import optuna_internals

    study = optuna.load_study(
        study_name=asked.study,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    return optuna_internals.open_trial(study, asked.number)


def _check_may_begin(asked: Task, trial: optuna.Trial, locks: Locks) -> None:
    state = _frozen(trial, asked.number).state.name
    if state != "RUNNING":
        raise Refused(f"trial {asked.number}: is {state}, so that somebody else settled it")
    if code_hash() != asked.code:
        raise Refused(
            f"trial {asked.number}: hft/ here is not what study {asked.study} began with, and its "
            "trials must be comparable; restore it, or begin another study: sweep.study=new"
        )
    if not _has_driver(asked, locks):
        raise Refused(
            f"trial {asked.number}: its driver's lease is not held as seen from here: the driver "
            "is gone, or this machine does not share its locks; take "
            "sweep.storage=postgresql+psycopg://user@host/database"
        )


def _has_driver(asked: Task, locks: Locks) -> bool:
    """Looks twice where a living driver may have to take its lease again."""
    lease = f"driver-{asked.driver}"
    if locks.is_held(lease):
        return True
    time.sleep(locks.renew_s)
    return locks.is_held(lease)


def _find_progress(trial: optuna.Trial, folder: Path, number: int | None) -> Path | None:
    """The folder of trial `number`, to go on from; where that trial had not begun, the folder of
    the one before it. None on a machine that has neither: the trial begins anew.
    """
    while number is not None:
        source = folder / f"{number:04d}"
        if (source / "config.json").is_file():
            return source
        before = _frozen(trial, number).user_attrs.get("retry_of")
        # A stranger's storage may lead in a circle.
        number = before if before is not None and before < number else None
    return None


def _attempt(asked: Task, trial: optuna.Trial, run: Run, source: Path | None) -> Outcome:
    log = "" if asked.echo else str(run.folder / LOG)
    try:
        outcome = _train(asked, trial, run, source)
    except BaseException as error:  # polars' panics are no Exception; the worker serves on
        outcome = _failure(error)
    return outcome.model_copy(update={"log": log})


def _failure(error: BaseException) -> Outcome:
    """What the training raised, as an outcome; its traceback goes to the log."""
    if isinstance(error, KeyboardInterrupt) or hasattr(error, "exit_status"):
        return Outcome(
            status=Status.INTERRUPTED,
            reason=str(error) or "interrupted by SIGINT",
            exit_status=int(getattr(error, "exit_status", 128 + signal.SIGINT)),
        )
    if isinstance(error, UserError):
        sys.stderr.write(f"error: {error}\n")
        reason = str(error)
    else:
        traceback.print_exception(error)
        reason = _last_line(error)
    return Outcome(status=Status.DIED if is_outside(error) else Status.FAILED, reason=reason)


def _train(asked: Task, trial: optuna.Trial, run: Run, source: Path | None) -> Outcome:
    from hft.config.configs import TrainConfig
    from hft.runs.train import train

    # The output is a file, where a bar that draws itself anew is noise, and config.json is beside
    # it.
    quiet = {"show_config": False, "trainer": asked.config["trainer"] | {"progress": False}}
    config = parse(TrainConfig, asked.config | quiet)
    watch = _make_watch(asked, trial, config, source)
    ended = train(config, run=run, watch=watch, group=asked.study, last=_last_market())
    metrics = run.read_metrics()
    return Outcome(
        status=Status.PRUNED if ended.pruned else Status.COMPLETE,
        # Optuna takes the last report of a pruned trial for its value.
        values=None if ended.pruned else _values(asked.sweep.objectives, metrics),
        constraints={
            name: _excess(bound, metrics.get(name))
            for name, bound in asked.sweep.constraints.items()
        },
        metrics={name: metrics.get(name) for name in shown_metrics(config)},
    )


@functools.cache
def _last_market() -> Last[Market]:
    """One per process: a trial with the data of the one before spends milliseconds on them."""
    from hft.dataset.stages import Last

    return Last()


@dataclass
class Reports:
    """The watch of a trial (hft/learning/watch.py): stores each value; the sweep's pruner decides
    whether to stop.
    """

    trial: optuna.Trial
    objective: str
    per_epoch: bool
    known: set[int] = field(default_factory=set)

    def report(self, step: int, value: float) -> bool:
        if step in self.known:  # a resumed training repeats the epochs since its last save
            return False
        self.repeat({step: value})
        return self.trial.should_prune()

    def repeat(self, values: Mapping[int, float]) -> None:
        for step, value in sorted(values.items()):
            self.trial.report(value, step)
            self.known.add(step)


def _make_watch(
    asked: Task, trial: optuna.Trial, config: TrainConfig, source: Path | None
) -> Reports | None:
    sweep = asked.sweep
    if not sweep.prunes:
        return None
    per_epoch = sweep.prunes == "epoch"
    # `should_prune` asks the pruner of the trial's study, which so far prunes nothing.
    trial.study.pruner = sweep.pruner(
        count_units(config) * (config.trainer.epochs if per_epoch else 1)
    )
    watch = Reports(trial, sweep.objectives[0], per_epoch)
    # The pruner must see the whole curve, not only what comes after the death.
    if source is not None:
        watch.repeat(_frozen(trial, int(source.name)).intermediate_values)
    return watch


def count_units(config: TrainConfig) -> int:
    """Trainings of a run, known before its data are read: the number of folds does not depend on
    the range.
    """
    return len(config.splits.periods(0, 2**62)) * config.seeds


def _frozen(trial: optuna.Trial, number: int) -> FrozenTrial:
    from hft.study.optuna_internals import frozen_trial

    return frozen_trial(trial.study, number)


def _excess(bound: Bound, value: float | None) -> float:
    """At most 0 where the metric keeps the bound; a run without the metric breaks it."""
    return bound.excess(math.nan if value is None else float(value))


def _values(objectives: tuple[str, ...], metrics: Mapping[str, float | None]) -> tuple[float, ...]:
    return tuple(_value(name, metrics) for name in objectives)


def _value(name: str, metrics: Mapping[str, float | None]) -> float:
    if name not in metrics:
        raise UserError(
            f"objective {name}: no metric of the run{did_you_mean(name, list(metrics))}"
        )
    if (value := metrics[name]) is None:
        raise UserError(f"objective {name}: has no finite value in this run; see its metrics.json")
    return float(value)


def _store(trial: optuna.Trial, outcome: Outcome) -> None:
    """A failure costs nothing: the outcome goes back to the driver through the engine too."""
    try:
        trial.set_user_attr("outcome", outcome.plain())
    except Exception:
        traceback.print_exc()


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


@contextlib.contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Sends standard output and error of the process and its children to `path`, and back
    afterwards, whatever happens.
    """
    _flush()
    with contextlib.ExitStack() as undo:
        with writable(path):
            # By line, so that one can follow a trial, and a killed worker's last words are in the
            # file.
            file = undo.enter_context(path.open("a", buffering=1, errors="replace"))
        # Compiled libraries and child processes write to the descriptors, past sys.stdout.
        for number in (1, 2):
            kept = os.dup(number)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        # In a notebook or a test sys.stdout is not descriptor 1.
        undo.enter_context(contextlib.redirect_stdout(file))
        undo.enter_context(contextlib.redirect_stderr(file))
        undo.callback(_flush)
        yield


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
