"""What hft/study/optuna_internals.py takes of Optuna is as it was: one test per private name."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal._storage import JournalOperation

from hft.study.journal import Backend
from hft.study.optuna_internals import (
    MINOR_OPERATIONS,
    enqueued_params,
    frozen_trial,
    open_trial,
    set_attribute,
    set_constraint,
    study_id,
    trial_id,
)


@pytest.fixture
def study(tmp_path):
    storage = JournalStorage(Backend(tmp_path / "journal.log"))
    return optuna.create_study(study_name="s", storage=storage)


def storage_of(study):
    return study._storage


def test_study_id(study):
    assert storage_of(study).get_study_name_from_id(study_id(study)) == "s"


def test_trial_id(study):
    number = study.ask().number
    asked = storage_of(study).get_trial_id_from_study_id_trial_number(study_id(study), number)
    assert asked == trial_id(study.get_trials()[number])


def test_study_storage_gives_a_trial_by_number(study):
    study.ask()
    number = study.ask().number
    assert frozen_trial(study, number) == study.get_trials()[number]


def test_a_trial_that_another_process_began_can_be_reported_to(study):
    number = study.ask().number
    trial = open_trial(study, number)
    trial.report(0.5, 3)
    trial.set_user_attr("host", "here")
    frozen = study.get_trials()[number]
    assert (frozen.intermediate_values, frozen.user_attrs) == ({3: 0.5}, {"host": "here"})


def test_set_attribute(study):
    study.ask()
    set_attribute(storage_of(study), study.get_trials()[0], "reason", "x")
    assert study.get_trials()[0].user_attrs == {"reason": "x"}


def test_the_prefix_of_constraints(study):
    ours, theirs = study.ask(), study.ask()
    set_constraint(storage_of(study), study.get_trials()[ours.number], "trades", 2.0)
    theirs.set_constraint("trades", 2.0)
    first, second = study.get_trials()
    assert first.constraints == {"trades": 2.0}
    assert first.system_attrs == second.system_attrs


def test_the_attribute_of_enqueued_params(study):
    study.enqueue_trial({"lr": 0.1})
    study.ask()
    assert enqueued_params(study.get_trials()[0]) == {"lr": 0.1}
    study.ask()
    assert enqueued_params(study.get_trials()[1]) is None


def test_the_numbers_of_journal_operations():
    """Those that only a running trial writes, many times; every other one is synced to the disk."""
    assert {JournalOperation(number).name for number in MINOR_OPERATIONS} == {
        "SET_TRIAL_PARAM", "SET_TRIAL_INTERMEDIATE_VALUE"
    }  # fmt: skip
    assert {operation.name for operation in JournalOperation} == {
        "CREATE_STUDY", "DELETE_STUDY", "SET_STUDY_USER_ATTR", "SET_STUDY_SYSTEM_ATTR",
        "CREATE_TRIAL", "SET_TRIAL_PARAM", "SET_TRIAL_STATE_VALUES",
        "SET_TRIAL_INTERMEDIATE_VALUE", "SET_TRIAL_USER_ATTR", "SET_TRIAL_SYSTEM_ATTR",
        "DISCARD_TRIALS",
    }  # fmt: skip


def test_the_journal_calls_append_logs_of_its_backend_with_operations(study, tmp_path, monkeypatch):
    seen = []
    append = Backend.append_logs
    monkeypatch.setattr(
        Backend, "append_logs", lambda self, logs: seen.extend(logs) or append(self, logs)
    )
    study.ask().report(1.0, 0)
    assert [log["op_code"] for log in seen] == [
        JournalOperation.CREATE_TRIAL, JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE
    ]  # fmt: skip
