"""One trial of a sweep, in the worker that an engine gave it: a task in, an outcome out, a run
folder in between.

The worker reports through the study's storage and never tells: the driver does, by the outcome,
which is also stored as the trial's user attribute `outcome`, so that a driver that died loses
nothing. While it works it holds the lease `trial-<number>`; what it prints is in the folder's
`log.txt`. torch and Optuna wait until a trial begins.
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

from pydantic import Field

from hft.runs.folder import Run, RunError
from hft.runs.registry import create_trial
from hft.spec import Kind, Room, Spec, UserError, did_you_mean, parse
from hft.study.storage import Locks, StorageError, read_address
from hft.system.files import FileError, writable
from hft.system.provenance import code_hash

if TYPE_CHECKING:
    import optuna

    from hft.config.configs import TrainConfig
    from hft.dataset.stages import Last

LOG = "log.txt"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Refused(UserError):
    """A trial that this worker must leave alone."""


class Task(Spec):
    """What the driver asks of a worker, as it is sent."""

    study: str
    storage: str = Field(description="the text of an Address; no password")
    folder: str = Field(description="the study's")
    number: int = Field(ge=0, description="the trial's")
    config: dict[str, Any] = Field(description="TrainConfig.plain()")
    sweep: Annotated[Kind, Room("hft.study.sweep")]
    code: str = Field(description="hash of the code that the study began with")
    driver: str = Field(description="whose lease the trial hangs on")
    continue_from: int | None = Field(
        ge=0, description="the trial whose worker died, of which this one is a copy that goes on"
    )
    echo: bool = Field(description="print to where the worker prints, instead of the log")


def run_trial(task: dict[str, Any]) -> dict[str, Any]:
    """The outcome: `status` (complete, pruned, failed, interrupted, died, refused), `values` of the
    objectives when it is complete, `constraints` (at most 0: kept), `reason` and `log`. An
    interrupted one has an `exit_status`, 128 + the signal; one that died lost its storage or its
    disk; a refused one could not begin, and nor could the next.
    """
    asked = parse(Task, task)
    try:
        address = read_address(asked.storage, Path(asked.folder))
        locks, lease = address.locks(), f"trial-{asked.number}"
        if locks.is_held(lease):
            raise Refused(f"trial {asked.number}: another worker is at it")
        with locks.hold(lease):
            trial = open_trial(address.open(), asked)
            _check_may_begin(asked, trial, locks)
            source = _find_progress(trial, Path(asked.folder), asked.continue_from)
            run = _take_folder(asked, source)
            trial.set_user_attr(
                "host", platform.node()
            )  # from here on a death counts (hft/study/claims.py)
            with contextlib.nullcontext() if asked.echo else redirected(run.folder / LOG):
                outcome = _attempt(asked, trial, run, source)
                _store(trial, outcome)
    except Exception as error:  # of the training they are part of its outcome
        if isinstance(error, Refused) or is_outside(error):
            return _outcome("refused", reason=str(error))
        raise
    return outcome


def is_outside(error: BaseException) -> bool:
    """What is no fault of the trial: a storage that gives no answer, a disk that takes nothing."""
    from optuna.exceptions import StorageInternalError

    full = isinstance(error, OSError) and error.errno in NO_ROOM
    return full or isinstance(error, StorageError | StorageInternalError | FileError)


def _take_folder(asked: Task, source: Path | None) -> Run:
    try:
        return create_trial(Path(asked.folder), asked.number, copy_of=source)
    except RunError as error:
        raise Refused(str(error)) from None


def open_trial(storage: optuna.storages.BaseStorage, asked: Task) -> optuna.Trial:
    """The driver's trial, to report to. It is asked nothing, so the sampler is one that costs
    nothing.
    """
    import optuna

    study = optuna.load_study(
        study_name=asked.study,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    return optuna.Trial(
        study, storage.get_trial_id_from_study_id_trial_number(study._study_id, asked.number)
    )


def _check_may_begin(asked: Task, trial: optuna.Trial, locks: Locks) -> None:
    state = trial.storage.get_trial(trial._trial_id).state.name
    if state != "RUNNING":
        raise Refused(f"trial {asked.number}: is {state}, so that somebody else settled it")
    if code_hash() != asked.code:
        raise Refused(
            f"trial {asked.number}: hft/ here is not what study {asked.study} began with, and its trials must be "
            "comparable; restore it, or begin another study: sweep.study=new"
        )
    if not _has_driver(asked, locks):
        raise Refused(
            f"trial {asked.number}: its driver's lease is not held as seen from here: the driver is gone, or this "
            "machine does not share its locks; take sweep.storage=postgresql+psycopg://user@host/database"
        )


def _has_driver(asked: Task, locks: Locks) -> bool:
    """Looks twice, where a driver may be about to take its lease again."""
    lease = f"driver-{asked.driver}"
    if locks.is_held(lease):
        return True
    time.sleep(locks.renew_s)
    return locks.is_held(lease)


def _find_progress(trial: optuna.Trial, folder: Path, number: int | None) -> Path | None:
    """The folder to go on from: of trial `number`, or where that one had not begun of the one it
    was to go on from. On a machine that has none the trial begins anew.
    """
    while number is not None:
        source = folder / f"{number:04d}"
        if (source / "config.json").is_file():
            return source
        before = _frozen(trial, number).user_attrs.get("retry_of")
        number = (
            before if before is not None and before < number else None
        )  # a file may lead in a circle
    return None


def _attempt(asked: Task, trial: optuna.Trial, run: Run, source: Path | None) -> dict[str, Any]:
    log = "" if asked.echo else str(run.folder / LOG)
    try:
        return _train(asked, trial, run, source) | {"log": log}
    except (
        BaseException
    ) as error:  # polars panics below BaseException; a trial never ends its worker
        if isinstance(error, KeyboardInterrupt) or hasattr(error, "exit_status"):
            status = getattr(error, "exit_status", 128 + signal.SIGINT)
            reason = str(error) or "interrupted by SIGINT"
            return _outcome("interrupted", reason=reason, log=log) | {"exit_status": int(status)}
        status = "died" if is_outside(error) else "failed"
        if isinstance(error, UserError):
            sys.stderr.write(f"error: {error}\n")
            return _outcome(status, reason=str(error), log=log)
        traceback.print_exc()
        return _outcome(status, reason=_last_line(error), log=log)


def _train(asked: Task, trial: optuna.Trial, run: Run, source: Path | None) -> dict[str, Any]:
    from hft.config.configs import TrainConfig
    from hft.runs.train import train

    quiet = {"show_config": False, "trainer": asked.config["trainer"] | {"progress": False}}
    config = parse(TrainConfig, asked.config | quiet)
    watch = _make_watch(asked, trial, config, source)
    outcome = train(config, run=run, watch=watch, group=asked.study, last=_last_market())
    metrics = run.read_metrics()
    constraints = {
        name: _excess(bound, metrics.get(name)) for name, bound in asked.sweep.constraints.items()
    }
    if outcome.pruned:
        return _outcome("pruned", constraints=constraints)
    return _outcome(
        "complete", values=_values(asked.sweep.objectives, metrics), constraints=constraints
    )


@functools.cache
def _last_market() -> Last:
    """Of this process: a trial that shares its data with the one before spends a few milliseconds
    on them.
    """
    from hft.dataset.stages import Last

    return Last()


@dataclass
class Reports:
    """The watch of a trial (hft/learning/watch.py): what it is told goes to the storage, and the
    sweep's pruner decides.
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
    trial.study.pruner = sweep.pruner(
        count_units(config) * (config.trainer.epochs if per_epoch else 1)
    )
    watch = Reports(trial, sweep.objectives[0], per_epoch)
    if source is not None:
        watch.repeat(_frozen(trial, int(source.name)).intermediate_values)
    return watch


def count_units(config: TrainConfig) -> int:
    """Trainings of a run, known before its data are: how many folds there are does not depend on
    the range.
    """
    return len(config.splits.periods(0, 2**62)) * config.seeds


def _frozen(trial: optuna.Trial, number: int) -> optuna.trial.FrozenTrial:
    storage = trial.storage
    return storage.get_trial(
        storage.get_trial_id_from_study_id_trial_number(trial.study._study_id, number)
    )


def _excess(bound: Any, value: float | None) -> float:
    """At most 0 where the metric keeps the bound; a run without the metric does not."""
    return bound.excess(math.nan if value is None else float(value))


def _values(objectives: tuple[str, ...], metrics: Mapping[str, float | None]) -> list[float]:
    for name in objectives:
        if name not in metrics:
            raise UserError(
                f"objective {name}: no metric of the run{did_you_mean(name, list(metrics))}"
            )
        if metrics[name] is None:
            raise UserError(
                f"objective {name}: has no finite value in this run; see its metrics.json"
            )
    return [float(metrics[name]) for name in objectives]


def _outcome(
    status: str,
    *,
    values: list[float] | None = None,
    constraints: dict[str, float] | None = None,
    reason: str = "",
    log: str = "",
) -> dict[str, Any]:
    return {
        "status": status,
        "values": values,
        "constraints": constraints or {},
        "reason": reason,
        "log": log,
    }


def _store(trial: optuna.Trial, outcome: dict[str, Any]) -> None:
    """Where it fails the outcome still goes back to the driver by the engine."""
    try:
        trial.storage.set_trial_user_attr(trial._trial_id, "outcome", outcome)
    except Exception:
        traceback.print_exc()


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


@contextlib.contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Standard output and error of the process and its children go to `path`, and back afterwards,
    whatever happens.
    """
    _flush()
    with contextlib.ExitStack() as undo:
        with writable(path):
            file = undo.enter_context(path.open("a", buffering=1, errors="replace"))
        for number in (1, 2):
            kept = os.dup(number)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        # Where sys.stdout is not descriptor 1 (a notebook, a test) its text goes along.
        undo.enter_context(contextlib.redirect_stdout(file))
        undo.enter_context(contextlib.redirect_stderr(file))
        undo.callback(_flush)
        yield


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
