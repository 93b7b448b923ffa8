"""What we use of Optuna beyond its public names, each with a test that fails by its name when the
pin moves (tests/study/test_optuna_internals.py).

Optuna offers no public way to write a constraint or an attribute of a trial that another process
runs, and calls the operations of its journal by numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal._storage import JournalOperation

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

CONSTRAINT = "constraints:"  # prefix of the attributes that `Trial.set_constraint` writes
FIXED_PARAMS = "fixed_params"  # attribute with what `Study.enqueue_trial` was given
# Parameters and reports of a running trial: the trial's next line takes them to the disk.
MINOR_OPERATIONS = frozenset({
    JournalOperation.SET_TRIAL_PARAM.value, JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE.value,
})  # fmt: skip


def study_id(study: optuna.Study) -> int:
    """The storage's number of the study, which optuna-dashboard has in its addresses."""
    return study._study_id


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The storage's number of the trial, over all studies."""
    return trial._trial_id


def open_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that another process began, to report to."""
    return optuna.Trial(study, trial_id(frozen_trial(study, number)))


def frozen_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Trial `number` as the storage has it now; reads no other trial."""
    storage = study._storage
    return storage.get_trial(
        storage.get_trial_id_from_study_id_trial_number(study_id(study), number)
    )


def set_attribute(storage: BaseStorage, trial: FrozenTrial, name: str, value: Any) -> None:
    """Writes a user attribute. In public only `Trial` can, and to make one asks the sampler."""
    storage.set_trial_user_attr(trial_id(trial), name, value)


def set_constraint(storage: BaseStorage, trial: FrozenTrial, name: str, value: float) -> None:
    """Writes what `FrozenTrial.constraints` reads back; in public only the trial's process can."""
    storage.set_trial_system_attr(trial_id(trial), CONSTRAINT + name, value)


def enqueued_params(trial: FrozenTrial) -> dict[str, Any] | None:
    """What the trial was enqueued with, None where it was not; a waiting trial has no other
    parameters.
    """
    return trial.system_attrs.get(FIXED_PARAMS)
