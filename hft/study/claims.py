"""Who works on what: drivers take trials, settle them, and give back those whose worker or driver
died.

All of it happens under the study's lock, which orders the steps of all drivers. So the study's
total is exact, one worker at a time tries a point, and the next call mends what a kill between any
two steps leaves:

* A trial is taken when its `driver` attribute is written, the last step of a claim. A running trial
  without the attribute was cut short in between, and goes back as it is.
* A retry is enqueued before the trial that it repeats is told to have failed, and never twice.
* A RUNNING trial is an orphan when nobody holds `driver-<id>` or `trial-<number>`: the kernel or
  the database says so.

So a driver holds `driver-<id>` before it claims, and a worker takes `trial-<number>` before it
looks whether the trial still runs and its driver lives. The attributes of a trial are: `driver`;
`host`, which its worker writes when it begins; `outcome`, which its worker writes when it ends
(hft/study/outcome.py); `reason`, why it failed; and of a retry `retry_of` (the trial before),
`origin` (the first one) and `attempt` (how many deaths came before).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from hft.space import Scalar
from hft.study.optuna_internals import enqueued_params, set_attribute, set_constraint
from hft.study.outcome import RETURNED, Outcome, Status, read_outcome
from hft.study.storage import StorageError
from hft.study.study import Study, n_points
from hft.study.sweep import trial_seed

if TYPE_CHECKING:
    import optuna

BEGAN = "host"  # attribute that a worker writes when it begins


@dataclass(frozen=True)
class Claim:
    """A trial to run now; `retry_of` is the one that it goes on from."""

    number: int
    params: dict[str, Scalar]
    retry_of: int | None
    attempt: int


def claim(
    study: Study, *, driver: str, points: Sequence[dict[str, Scalar]], total: int
) -> Claim | None:
    """The next trial for `driver`, which must hold `driver-<driver>`: a retry, a point of the list,
    or a new sample.

    None where there is nothing to take: the study has `total` points, or all that is left is
    running elsewhere.
    """
    with _turn(study):
        trials = study.trials()
        # Dead trials are reaped before the search for a waiting one, so that this claim takes the
        # retry.
        if _reap(study, trials, mine=driver):
            trials = study.trials()
        waiting = next((t for t in trials if t.state is TrialState.WAITING), None)
        if waiting is None:
            # Retries do not count here: the study gets its total of points whatever dies on the
            # way.
            place = n_points(trials)
            if place >= total:
                return None
            if place < len(points):
                # A driver killed after this line leaves the point waiting. The next claim takes it
                # from there, and it counts as a point by then, so that nobody enqueues it twice.
                study.optuna.enqueue_trial(points[place])
        return _ask(study, driver, waiting.number if waiting else len(trials))


def settle(study: Study, number: int, outcome: Outcome) -> bool:
    """Ends the trial as the worker's `outcome` says; False where it had ended before, which changes
    nothing.
    """
    with _turn(study):
        # The trial is read under the lock, because another driver may have settled it meanwhile.
        return _settle(study, study.trials()[number], outcome)


def release(study: Study, number: int, reason: str, *, counted: bool) -> bool:
    """Gives a trial back that ended without an outcome, to be tried again from where it stopped.

    False where nobody tries it again: it had ended before, or it died (`counted`) more than
    max_retry times.
    """
    with _turn(study):
        return _release(study, study.trials()[number], reason, counted=counted)


def reap(study: Study) -> list[int]:
    """Ends RUNNING trials whose driver and worker are gone, and returns their numbers; `claim` does
    so by itself.
    """
    with _turn(study):
        return _reap(study, study.trials())


@contextlib.contextmanager
def _turn(study: Study) -> Iterator[None]:
    try:
        with study.locks.study():
            yield
    except (StorageInternalError, OSError) as error:
        # Optuna's own error only wraps what the disk or the server said.
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StorageError(
            f"storage {study.address.text}: failed ({cause}); the same command goes on"
        ) from error


def _ask(study: Study, driver: str, number: int) -> Claim:
    """`number` is the one that the next trial will have: nobody else asks now."""
    # Every trial has a new sampler, seeded by the trial's number: a search repeats itself whichever
    # drivers share it, and a kill changes nothing of what comes after.
    study.optuna.sampler = study.sweep.sampler(trial_seed(study.sweep.seed, number))
    trial = study.optuna.ask()
    try:
        params = study.space.suggest(trial)
    except Exception as error:
        # The space does not have this point, which would come back for ever.
        _fail(study, study.trials()[trial.number], f"no point of the space: {error}")
        raise
    # This is the last step of a claim: without the attribute a trial has no owner and goes back.
    trial.set_user_attr("driver", driver)
    given = trial.user_attrs
    return Claim(trial.number, params, given.get("retry_of"), given.get("attempt", 0))


def _reap(study: Study, trials: Sequence[FrozenTrial], *, mine: str = "") -> list[int]:
    reaped = []
    for trial in trials:
        if trial.state is not TrialState.RUNNING or _is_alive(study, trial, mine):
            continue
        trial = study.trials()[trial.number]  # the worker may have finished just before it let go
        outcome, owner = trial.user_attrs.get("outcome"), trial.user_attrs.get("driver")
        if outcome is not None:
            _settle(study, trial, read_outcome(outcome))
        # Only what a worker had begun counts as a death: a trial that no worker reached cannot have
        # killed one, and must not use up max_retry.
        elif owner is None:
            _release(study, trial, "its driver died while it took the trial", counted=False)
        elif BEGAN in trial.user_attrs:
            _release(study, trial, "its driver and its worker died", counted=True)
        else:  # a job that still waited in a queue, say
            _release(study, trial, "its driver died before a worker began", counted=False)
        reaped.append(trial.number)
    return reaped


def _is_alive(study: Study, trial: FrozenTrial, mine: str) -> bool:
    owner = trial.user_attrs.get("driver")
    if owner is None:
        return False  # the claim was cut short: nobody else claims while this process has the lock
    # Either lease keeps the trial: a Slurm job outlives its driver and may still finish.
    return (
        owner == mine
        or study.locks.is_held(f"driver-{owner}")
        or study.locks.is_held(f"trial-{trial.number}")
    )


def _settle(study: Study, trial: FrozenTrial, outcome: Outcome) -> bool:
    if trial.state is not TrialState.RUNNING:
        return False
    if outcome.status in RETURNED:
        _release(study, trial, _reason(outcome), counted=outcome.status is Status.DIED)
        return True
    storage = study.address.open()
    # The worker stores the outcome itself unless its storage failed. Reports read metrics from
    # there.
    if "outcome" not in trial.user_attrs:
        set_attribute(storage, trial, "outcome", outcome.plain())
    # All attributes come before `tell`, because Optuna lets nobody write to a trial that has ended.
    for name, value in outcome.constraints.items():
        set_constraint(storage, trial, name, value)
    if outcome.status is Status.PRUNED:
        study.optuna.tell(trial.number, state=TrialState.PRUNED)
    elif outcome.status is Status.FAILED:
        _fail(study, trial, _reason(outcome))
    elif wrong := _wrong_values(study.optuna, outcome.values or ()):
        _fail(study, trial, wrong)
    else:
        study.optuna.tell(trial.number, outcome.values)
    return True


def _reason(outcome: Outcome) -> str:
    return outcome.reason or "no reason given"


def _wrong_values(study: optuna.Study, values: Sequence[float]) -> str:
    """Why Optuna could not take them, "" where it can."""
    n = len(study.directions)
    if len(values) != n:
        return f"the outcome must have {n} value(s), got {list(values)}"
    bad = [value for value in values if math.isnan(value)]
    return f"an objective is no number: {bad[0]}" if bad else ""


def _release(study: Study, trial: FrozenTrial, reason: str, *, counted: bool) -> bool:
    if trial.state is not TrialState.RUNNING:
        return False
    attempt = trial.user_attrs.get("attempt", 0) + counted
    again = attempt <= study.sweep.max_retry
    # A driver killed between this enqueueing and the failure below leaves both trials. The next one
    # comes here again and must not make a second retry.
    if again and not any(t.user_attrs.get("retry_of") == trial.number for t in study.trials()):
        origin = trial.user_attrs.get("origin", trial.number)
        # A dead trial may not have drawn all of its parameters. What it was enqueued with fills the
        # rest, so that its retry has the same point.
        params = (enqueued_params(trial) or {}) | trial.params
        attributes = {"retry_of": trial.number, "origin": origin, "attempt": attempt}
        study.optuna.enqueue_trial(params, user_attrs=attributes)
    _fail(study, trial, reason)
    return again


def _fail(study: Study, trial: FrozenTrial, reason: str) -> None:
    set_attribute(study.address.open(), trial, "reason", reason)
    study.optuna.tell(trial.number, state=TrialState.FAIL)
