"""Sweeps in real processes: killed, interrupted, edited under, shared; the totals stay exact and
nothing is lost.
"""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from hft.runs.folder import Run
from tests.search.project import Project, is_training, kill, workers

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    yield project
    project.close()


def assert_exact(study, total):
    """All trials accounted for: every point finished once, nothing left running or waiting."""
    counts = study.counts()
    assert (counts.points, counts.complete, counts.failed) == (total, total, 0)
    assert counts.running == counts.waiting == 0
    finished = [t for t in study.trials() if t.state.name == "COMPLETE"]
    origins = [t.user_attrs.get("origin", t.number) for t in finished]
    assert len(set(origins)) == total
    assert len({t.params["optim.lr"] for t in finished}) == total
    assert {Run(study.trial_folder(t.number)).state for t in finished} == {"done"}


def test_a_killed_driver_and_the_same_command_again(project):
    arguments = ("sweep.n_trials=4", "launcher.workers=2")
    driver = project.start(*arguments)
    project.wait(lambda study: study.counts().complete >= 1 and is_training(study))
    orphans = kill(driver)
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert not alive
    left = project.study()
    assert left.counts().running >= 1
    again = project.start(*arguments, name="again")
    assert project.end(again) == 0, project.said("again").read_text()[-3000:]
    study = project.study()
    assert_exact(study, 4)
    retried = [t for t in study.trials() if t.user_attrs.get("retry_of") is not None]
    assert retried
    for trial in retried:  # its folder holds the state of the dead one, from which it went on
        assert Run(study.trial_folder(trial.number)).read_metrics()["train/epochs"] == 40
    assert "best: run=maker_v1/" in project.said("again").read_text()


def test_two_drivers_one_killed_a_third_joins(project):
    arguments = ("sweep.n_trials=6", "launcher.workers=1")
    first = project.start(*arguments, name="driver")
    project.wait(lambda study: study.counts().running)
    second = project.start(*arguments, name="second")
    project.wait(lambda study: study.counts().running >= 2 and is_training(study))
    kill(first)
    third = project.start(*arguments, name="third")
    assert project.end(second) == 0, project.said("second").read_text()[-3000:]
    assert project.end(third) == 0, project.said("third").read_text()[-3000:]
    assert_exact(project.study(), 6)


def test_a_killed_worker_costs_its_trial_nothing_but_time(project):
    driver = project.start("sweep.n_trials=2", "launcher.workers=1")
    project.wait(is_training)
    (worker, *_) = workers(driver)
    worker.send_signal(signal.SIGKILL)
    assert project.end(driver) == 0, project.said().read_text()[-3000:]
    study = project.study()
    assert_exact(study, 2)
    (dead,) = [t for t in study.trials() if t.state.name == "FAIL"]
    assert "its worker died" in dead.user_attrs["reason"]
    (retry,) = [t for t in study.trials() if t.user_attrs.get("retry_of") == dead.number]
    assert retry.user_attrs["attempt"] == 1
    # The bits of a run that nobody disturbed.
    twin = project.start("sweep.n_trials=1", "launcher=inline", "sweep.study=twin", name="twin")
    assert project.end(twin) == 0
    undisturbed = Run(project.root / "sweeps" / "twin" / "0000")
    first = retry if dead.number == 0 else study.trials()[0]
    assert first.value == undisturbed.read_metrics()["select/log_loss"]


def test_a_trial_that_always_dies_fails_after_max_retry(project):
    driver = project.start("sweep.n_trials=1", "launcher.workers=1", "sweep.max_retry=1")
    for _ in range(2):
        project.wait(is_training)
        (worker, *_) = workers(driver)
        worker.send_signal(signal.SIGKILL)
        psutil.wait_procs([worker], timeout=10)
        time.sleep(1)
    assert project.end(driver) == 1
    counts = project.study().counts()
    assert (counts.failed, counts.retried, counts.complete, counts.running) == (1, 1, 0, 0)
    assert "its worker died" in project.said().read_text()


def test_control_c_once_lets_the_running_ones_finish(project):
    driver = project.start("sweep.n_trials=6", "launcher.workers=1")
    project.wait(is_training)
    driver.send_signal(signal.SIGINT)
    assert project.end(driver) == 130
    said = project.said().read_text()
    assert "no new trials; 1 running ones finish" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    counts = project.study().counts()
    assert (counts.points, counts.complete, counts.running, counts.waiting) == (1, 1, 0, 0)
    again = project.start("sweep.n_trials=2", "launcher.workers=1", name="again")
    assert project.end(again) == 0
    assert_exact(project.study(), 2)


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_stopped_now_and_gone_on_with(project, signals):
    driver = project.start(
        "sweep.n_trials=2", "launcher.workers=1", "trainer.epochs=400", "trainer.patience=400"
    )
    project.wait(is_training)
    for number in signals:
        driver.send_signal(number)
        time.sleep(0.5)
    assert project.end(driver, timeout_s=30) == 128 + signals[-1]
    study = project.study()
    counts = study.counts()
    # The trial is saved and waits for the next call.
    assert (counts.running, counts.waiting, counts.points) == (0, 1, 1)
    assert Run(study.trial_folder(0)).state == "interrupted"
    stopped = len(study.trials())
    again = project.start(
        "sweep.n_trials=2",
        "launcher.workers=1",
        "trainer.epochs=400",
        "trainer.patience=400",
        name="again",
    )
    project.wait(lambda study: len(study.trials()) >= stopped and study.counts().running)
    project.wait(is_training)
    assert study.trials()[1].user_attrs["retry_of"] == 0
    again.send_signal(signal.SIGTERM)
    assert project.end(again, timeout_s=30) == 143


def test_editing_yaml_in_the_middle_changes_nothing(project):
    driver = project.start("sweep.n_trials=3", "launcher.workers=1")
    project.wait(is_training)
    optim = project.root / "conf" / "optim" / "adamw.yaml"
    before = optim.read_text()
    optim.write_text(before.replace("weight_decay: ", "weight_decay: 9"))
    assert optim.read_text() != before
    assert project.end(driver) == 0, project.said().read_text()[-3000:]
    study = project.study()
    decays = {
        Run(study.trial_folder(t.number)).read_config()["optim"]["weight_decay"]
        for t in study.trials()
    }
    assert len(decays) == 1
    assert_exact(study, 3)


def test_editing_code_in_the_middle_ends_it_and_says_so(project):
    driver = project.start("sweep.n_trials=3", "launcher.workers=1")
    project.wait(is_training)
    path = project.root / "hft" / "learning" / "loss" / "focal.py"
    text = path.read_text()
    path.write_text(text + "\n# another thought\n")
    assert project.end(driver) == 1
    said = project.said().read_text()
    assert "hft/ changed since study maker_v1 began" in said
    assert project.study().counts().points == 1
    path.write_text(text)
    again = project.start("sweep.n_trials=3", "launcher.workers=1", name="again")
    assert project.end(again) == 0
    assert_exact(project.study(), 3)
