"""Sweeps over several machines, whole command lines in real processes: on a real PostgreSQL, on a
real Slurm.

Projects are copies with sweeps folders of their own, as machines have; what the trials come to is
held against a sweep in one process that nobody disturbed, to the bit.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pytest

from hft.runs.folder import Run
from tests.search.project import NAME, Project, kill
from tests.search.slurm import two_nodes
from tests.smoke import ROOT

pytest_plugins = ("tests.study.servers",)
pytestmark = pytest.mark.slow

PASSWORD = "correct-horse-staple"
# Few epochs of many steps, saved in between, with a line in metrics.csv each.
EPOCHS = 10
TRIALS = (
    f"trainer.epochs={EPOCHS}", "trainer.chunk=16", "trainer.batch_chunks=1",
    "trainer.save_every_s=0.2", "logger=csv",
)  # fmt: skip
SLURM = (
    "launcher=slurm", "launcher.max_jobs=2", "launcher.cpus=1", "launcher.time_min=30",
    "launcher.poll_s=0.5",
    "+launcher.options.exclusive=true",  # or both would fit on one node
    *TRIALS,
)  # fmt: skip


def complete(study):
    return {
        t.user_attrs.get("origin", t.number): t
        for t in study.trials()
        if t.state.name == "COMPLETE"
    }


def assert_exact(study, total, undisturbed):
    """Every point finished once, with the bits of those that nobody disturbed; nothing left running
    or waiting.
    """
    counts = study.counts()
    assert (counts.points, counts.complete, counts.failed) == (total, total, 0)
    assert counts.running == counts.waiting == 0
    finished = complete(study)
    assert len({t.params["optim.lr"] for t in finished.values()}) == len(finished) == total
    assert {number: finished[number].value for number in undisturbed.values} == undisturbed.values


def running(study):
    return [t.number for t in study.trials() if t.state.name == "RUNNING"]


def retries(study):
    return {
        t.user_attrs["retry_of"]: t
        for t in study.trials()
        if t.user_attrs.get("retry_of") is not None
    }


def curve(study, number):
    """Epochs with the speed of each, which no training repeats."""
    path = study.trial_folder(number) / "metrics.csv"
    return pl.read_csv(path)["train/examples_per_s"].to_list() if path.exists() else []


def has_epochs(study, number=None):
    """Whether a trial, or the one, runs and has told of two epochs."""
    return any(len(curve(study, n)) >= 2 for n in running(study) if number in (None, n))


def assert_went_on(study, number):
    """The trial's retry began with the epochs of the one that was cut short."""
    retry = retries(study)[number]
    before, after = curve(study, number), curve(study, retry.number)
    assert before
    assert before[:-1] == after[: len(before) - 1]  # the last may have come after the last save
    assert len(after) == EPOCHS
    return retry


@dataclass(frozen=True)
class Undisturbed:
    values: dict[int, float]  # of the first points
    cache: Path

    def project(self, root: Path) -> Project:
        """Another one, which has the data and need not compile what makes them."""
        project = Project(root)
        shutil.copytree(self.cache, root / "cache")
        return project


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    try:
        driver = project.start("launcher=inline", "sweep.n_trials=2", *TRIALS)
        assert project.end(driver) == 0, project.said().read_text()[-3000:]
        values = {number: trial.value for number, trial in complete(project.study()).items()}
        return Undisturbed(values, project.root / "cache")
    finally:
        project.close()


# PostgreSQL


@pytest.fixture(scope="module")
def guarded(postgres, tmp_path_factory):
    """The address of a database whose user is asked for a password, which is in the file that
    PGPASSFILE names.
    """
    postgres.run(f"create role sweeper login password '{PASSWORD}'")
    postgres.run("create database machines owner sweeper")
    rules = postgres.handle.pgdata / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all sweeper scram-sha-256\n" + before)
    postgres.run("select pg_reload_conf()")
    passfile = tmp_path_factory.mktemp("secret") / "pgpass"
    passfile.write_text(f"*:*:*:sweeper:{PASSWORD}\n")
    passfile.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PGPASSWORD", raising=False)
        patch.setenv("PGPASSFILE", str(passfile))
        yield postgres.url("machines", user="sweeper")
    rules.write_text(before)
    postgres.run("select pg_reload_conf()")
    postgres.run("drop database machines with (force)")
    postgres.run("drop role sweeper")


@pytest.fixture(scope="module")
def machines(guarded, undisturbed, tmp_path_factory):
    """Four on one study, after the first was killed and the others finished."""
    root = tmp_path_factory.mktemp("machines")
    machines = [undisturbed.project(root / f"machine{n}") for n in range(4)]
    arguments = ("sweep.n_trials=6", "launcher.workers=1", f"sweep.storage='{guarded}'", *TRIALS)
    try:
        for number, machine in enumerate(machines):
            machine.start(*arguments, *["logger=wandb", "logger.mode=offline"] * (number == 1))
        first, *others = machines
        first.wait(has_epochs)
        _, alive = psutil.wait_procs(kill(first.drivers[0]), timeout=5)
        assert not alive
        for machine in others:
            assert machine.end(machine.drivers[0]) == 0, machine.said().read_text()[-3000:]
        yield machines
    finally:
        for machine in machines:
            machine.close()


def test_all_trials_are_accounted_for(machines, undisturbed):
    studies = [machine.study() for machine in machines]
    assert_exact(studies[0], 6, undisturbed)
    for number, trial in complete(studies[0]).items():
        having = [s for s in studies if s.trial_folder(trial.number).exists()]
        assert [Run(s.trial_folder(trial.number)).state for s in having] == ["done"], number
    assert len({t.user_attrs["driver"] for t in studies[0].trials()}) >= 3


def test_another_machine_begins_the_dead_one_s_trial_anew(machines):
    studies = [machine.study() for machine in machines]
    ((dead, retry),) = retries(studies[0]).items()
    assert studies[0].trial_folder(dead).is_dir()
    (taker,) = [s for s in studies if s.trial_folder(retry.number).exists()]
    assert not taker.trial_folder(dead).exists()
    assert Run(taker.trial_folder(retry.number)).read_metrics()["train/epochs"] == EPOCHS
    assert "died" in studies[0].trials()[dead].user_attrs["reason"]


def test_the_password_is_nowhere(machines, guarded, postgres):
    root = machines[0].root.parent
    files = [path for path in root.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".wandb", ".json", ".txt", ".parquet", ".html", ".csv"} <= kinds
    secret = PASSWORD.encode()
    assert [path for path in files if secret in path.read_bytes()] == []
    user = guarded.partition("@")[0].encode()  # that the search would find what is there
    assert [path for path in files if user in path.read_bytes()]
    tables = ("study_user_attributes", "trial_user_attributes", "trial_system_attributes")
    stored = [postgres.run(f"select * from {table}", "machines") for table in tables]
    assert NAME in str(stored)
    assert PASSWORD not in str(stored)


def test_a_fifth_place_sees_how_far_it_is(machines, guarded, tmp_path):
    shown = studies(tmp_path, "status", f"study={NAME}", f"storage={guarded}")
    assert shown.returncode == 0, shown.stderr
    assert "6 complete" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def studies(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "hft", "studies", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_an_address_with_a_password_is_refused_before_anything_is_written(tmp_path):
    project = Project(tmp_path / "project")
    before = sorted(project.root.rglob("*.yaml"))
    address = f"postgresql+psycopg://sweeper:{PASSWORD}@localhost/machines"
    driver = project.start(f"sweep.storage={address}", *TRIALS)
    assert project.end(driver) == 2
    said = project.said().read_text()
    assert "PGPASSFILE" in said
    assert PASSWORD not in said
    assert "Traceback" not in said
    assert {path.name for path in project.root.iterdir()} == {
        "conf",
        "hft",
        "hydra_plugins",
        "train.py",
        "driver.txt",
    }
    assert sorted(project.root.rglob("*.yaml")) == before
    shown = studies(tmp_path, "status", f"study={NAME}", f"storage={address}")
    assert shown.returncode == 2
    assert PASSWORD not in shown.stdout + shown.stderr


def test_a_server_that_stops_ends_the_sweep_in_one_line_and_back_it_goes_on(
    tmp_path, postgres, undisturbed
):
    postgres.run("create database stops")
    project = undisturbed.project(tmp_path / "project")
    arguments = ("sweep.n_trials=2", f"sweep.storage='{postgres.url('stops')}'", *TRIALS)
    try:
        driver = project.start(*arguments, "launcher.workers=1")
        project.wait(has_epochs)
        postgres.handle.stop()
        try:
            assert project.end(driver, timeout_s=60) == 2
        finally:
            postgres.handle.start()
        said = project.said().read_text()
        assert "Traceback" not in said
        assert said.count("error:") == 1
        # In this process a trial begins before the server is so old that it knows of all that live.
        again = project.start(*arguments, "launcher=inline", name="again")
        assert project.end(again) == 0, project.said("again").read_text()[-3000:]
        assert_exact(project.study(), 2, undisturbed)
    finally:
        project.close()


# Slurm


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def project(cluster, undisturbed, tmp_path):
    project = undisturbed.project(tmp_path / "project")
    yield project
    project.close()
    cluster.run("scancel", f"--user={os.getuid()}")
    cluster.wait_until_idle()


def places(cluster):
    """Job and node of each trial, by number."""
    rows = cluster.run("squeue", "--states=all", "--noheader", "-o", "%i|%j|%N").splitlines()
    return {
        int(name.rpartition("-")[2]): (job, node)
        for job, name, node in (row.split("|") for row in rows)
    }


def test_two_nodes_a_killed_worker_and_a_time_limit(project, cluster, undisturbed):
    driver = project.start("sweep.n_trials=4", *SLURM)
    number, reason = 0, ""
    in_an_epoch = re.compile(r"at epoch \d+, batch [1-9]\d* of \d\d")
    while not in_an_epoch.search(reason):
        project.wait(lambda study, n=number: has_epochs(study, n))
        job = places(cluster)[number][0]
        cluster.run("scancel", "--signal=USR2", job)  # as Slurm sends it before the limit
        project.wait(lambda study, n=number: n in retries(study))
        reason = project.study().trials()[number].user_attrs["reason"]
        limited, number = number, retries(project.study())[number].number
    project.wait(has_epochs)
    killed = next(n for n in running(project.study()) if has_epochs(project.study(), n))
    (worker,) = cluster.job_processes(places(cluster)[killed][0])
    worker.kill()
    assert project.end(driver) == 0, project.said().read_text()[-3000:]
    study = project.study()
    assert_exact(study, 4, undisturbed)
    assert assert_went_on(study, limited).user_attrs["attempt"] == 0
    assert assert_went_on(study, killed).user_attrs["attempt"] == 1
    assert "its worker died: Slurm job" in study.trials()[killed].user_attrs["reason"]
    assert {node for _, node in places(cluster).values()} == {"n1", "n2"}


def test_a_dead_node_s_trial_goes_on_on_the_other(project, cluster, undisturbed):
    driver = project.start("sweep.n_trials=2", *SLURM)
    project.wait(has_epochs)
    dead = next(n for n in running(project.study()) if has_epochs(project.study(), n))
    node = places(cluster)[dead][1]
    cluster.kill_node(node)
    try:
        assert project.end(driver) == 0, project.said().read_text()[-3000:]
    finally:
        cluster.start_node(node)
    study = project.study()
    assert_exact(study, 2, undisturbed)
    assert "NODE_FAIL" in study.trials()[dead].user_attrs["reason"]
    assert places(cluster)[assert_went_on(study, dead).number][1] == {"n1": "n2", "n2": "n1"}[node]


def test_jobs_outlive_a_killed_driver_and_the_next_takes_what_they_came_to(project, undisturbed):
    driver = project.start("sweep.n_trials=3", *SLURM)
    project.wait(
        lambda study: (
            len(found := running(study)) == 2 and all(study.trial_folder(n).exists() for n in found)
        )
    )
    kill(driver)
    study, until = project.study(), time.monotonic() + 60
    # Nobody is there to tell.
    while not any("outcome" in study.trials()[n].user_attrs for n in running(study)):
        assert time.monotonic() < until
        time.sleep(0.1)
    again = project.start("sweep.n_trials=3", *SLURM, name="again")
    assert project.end(again) == 0, project.said("again").read_text()[-3000:]
    study = project.study()
    assert_exact(study, 3, undisturbed)
    assert retries(study) == {}
    assert len({t.user_attrs["driver"] for t in study.trials()}) == 2


def test_control_c_twice_leaves_no_job_and_loses_nothing(project, cluster, undisturbed):
    driver = project.start("sweep.n_trials=2", *SLURM)
    project.wait(has_epochs)
    stopped = next(n for n in running(project.study()) if has_epochs(project.study(), n))
    for _ in range(2):
        driver.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert project.end(driver, timeout_s=30) == 130
    cluster.wait_until_idle()
    said, study = project.said().read_text(), project.study()
    assert "Traceback" not in said
    assert "the same command goes on" in said
    assert (study.counts().running, study.counts().points) == (0, 2)
    assert Run(study.trial_folder(stopped)).state == "interrupted"
    again = project.start("sweep.n_trials=2", *SLURM, name="again")
    assert project.end(again) == 0, project.said("again").read_text()[-3000:]
    assert_exact(project.study(), 2, undisturbed)
    assert assert_went_on(project.study(), stopped).user_attrs["attempt"] == 0
