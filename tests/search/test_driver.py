"""The driver's loop on an engine that says what it is told to: no worker, no training."""

from __future__ import annotations

import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest

from hft.search.driver import Driver, SweepInterrupted
from hft.search.launcher import Engine, PlaceLost, TrialTimeout, WorkerDied
from hft.search.worker import Task
from hft.spec import PACKAGE, parse
from hft.study.optuna_internals import set_attribute
from hft.study.outcome import Outcome, Status
from tests.study.claimers import make_study


class Said:
    """A future whose task has ended, or one that ends for nobody."""

    def __init__(self, outcome, *, ended=True):
        self.outcome, self.ended = outcome, ended

    def done(self):
        return self.ended

    def result(self):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self):
        pass


class Saying(Engine):
    slots = 1

    def __init__(self, say):
        self.say, self.tasks = say, []

    def submit(self, function, task):
        self.tasks.append(task)
        return self.say(task)

    def wait(self, futures, timeout_s):
        pass


SCREEN = SimpleNamespace(update=lambda: None, finished=lambda: None)


def drive(study, say, *, total):
    engine = Saying(say)
    driver = Driver(
        study, engine, compose=lambda params: params, points=[], total=total, screen=SCREEN
    )
    driver.run()
    return driver, engine


def complete(task):
    return Said(Outcome(status=Status.COMPLETE, values=(1.0,)).plain())


def test_takes_every_trial_and_no_more(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=5)
    driver, engine = drive(study, complete, total=5)
    assert [task["number"] for task in engine.tasks] == list(range(5))
    assert driver.stop_reason == ""
    assert study.counts().complete == 5


@pytest.mark.parametrize(
    "outcome",
    [
        WorkerDied("exit code -9"),
        PlaceLost("PREEMPTED"),
        {"status": "interrupted", "reason": "USR2"},
    ],
)
def test_what_never_saves_anything_is_not_tried_for_ever(tmp_path, outcome):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)
    _, engine = drive(study, lambda task: Said(outcome), total=1)
    assert len(engine.tasks) == 1 + study.sweep.max_retry
    counts = study.counts()
    assert (counts.failed, counts.retried, counts.running, counts.waiting) == (
        1,
        study.sweep.max_retry,
        0,
        0,
    )


def test_what_was_saved_is_gone_on_with(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)

    def preempted_five_times(task):
        folder = study.trial_folder(task["number"]) / "fold-0" / "seed-0"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").write_text("")
        return Said(PlaceLost("PREEMPTED")) if task["number"] < 5 else complete(task)

    _, engine = drive(study, preempted_five_times, total=1)
    assert [task["continue_from"] for task in engine.tasks] == [None, 0, 1, 2, 3, 4]
    assert study.counts().complete == 1


def test_the_task_is_one_that_a_worker_reads(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1, kind="tpe")
    driver, engine = drive(study, complete, total=1)
    (sent,) = engine.tasks
    task = parse(Task, json.loads(json.dumps(sent)))
    assert (task.study, task.number, task.driver) == ("s", 0, driver.id)
    assert task.sweep == study.sweep  # with the fields of its own kind
    assert task.config == study.trials()[0].params


def test_an_outcome_that_nobody_can_read_is_a_failure(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)
    drive(study, lambda task: Said({"status": "well"}), total=1)
    (trial,) = study.trials()
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["reason"].startswith("the outcome cannot be read: status: must be ")


def test_an_edit_of_the_driver_ends_the_sweep(tmp_path, monkeypatch):
    package = tmp_path / "hft"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("hft.system.provenance.PACKAGE", package)
    study = make_study(tmp_path / "sweeps" / "s", n_trials=5)

    def edit(task):
        with (package / "search" / "driver.py").open("a") as file:
            file.write("# edited\n")
        return complete(task)

    driver, engine = drive(study, edit, total=5)
    assert len(engine.tasks) == study.counts().complete == 1
    assert driver.stop_reason.startswith("hft/ changed since study s began")


def test_a_limit_of_the_engine_is_final(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)
    _, engine = drive(study, lambda task: Said(TrialTimeout("90 min")), total=1)
    assert len(engine.tasks) == study.counts().failed == 1


def test_what_was_stored_before_the_end_counts(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)

    def died_after_storing(task):
        trial = study.trials()[task["number"]]
        set_attribute(study.address.open(), trial, "outcome", complete(task).outcome)
        return Said(WorkerDied("exit code -9"))

    _, engine = drive(study, died_after_storing, total=1)
    assert len(engine.tasks) == study.counts().complete == 1


def test_the_third_control_c_waits_for_nobody(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=1)

    def never_ends(task):
        return Said(None, ended=False)

    calls = iter(range(100))

    class Interrupting(Saying):
        def wait(self, futures, timeout_s):
            assert next(calls) < 50
            os.kill(os.getpid(), signal.SIGINT)

    engine = Interrupting(never_ends)
    driver = Driver(study, engine, compose=lambda params: params, points=[], total=1, screen=SCREEN)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert study.counts().running == 1  # for the next call to find


def test_a_refusal_ends_it_without_a_loop(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=3)
    driver, engine = drive(
        study, lambda task: Said({"status": "refused", "reason": "hft/ is not"}), total=3
    )
    assert len(engine.tasks) == 1
    assert driver.stop_reason == "hft/ is not"
    assert (study.counts().waiting, study.counts().failed) == (1, 0)


def test_a_signal_while_nothing_runs(tmp_path):
    study = make_study(tmp_path / "sweeps" / "s", n_trials=3)

    def interrupt(task):
        os.kill(os.getpid(), signal.SIGINT)
        return complete(task)

    with pytest.raises(SweepInterrupted) as error:
        drive(study, interrupt, total=3)
    assert error.value.exit_status == 130
    assert (study.counts().complete, study.counts().points) == (1, 1)
