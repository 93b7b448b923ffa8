"""Trials as Slurm jobs: on a real Slurm of two nodes (slow), and what needs none."""

from __future__ import annotations

import stat
import time
from types import SimpleNamespace

import pytest
import yaml

from hft.search.launcher import (
    LauncherError,
    MemoryExceeded,
    OverLimit,
    PlaceLost,
    TrialTimeout,
    Where,
    WorkerDied,
    _slurm_job,
    _squeue,
)
from hft.search.launcher._squeue import JobState, Queue, read_sacct, read_squeue
from hft.search.launcher.slurm import Slurm
from hft.spec import SpecError, parse
from tests.search.launcher import toys
from tests.search.launcher.conformance import ProcessConformance, outcome, wait_for
from tests.search.slurm import two_nodes
from tests.smoke import ROOT

SHIPPED = yaml.safe_load((ROOT / "conf" / "launcher" / "slurm.yaml").read_text())
SMALL = {"max_jobs": 2, "cpus": 1, "time_min": 30, "poll_s": 0.5}


def spec(**changes) -> Slurm:
    return parse(Slurm, SHIPPED | SMALL | changes)


@pytest.fixture
def where(tmp_path):
    return Where(folder=tmp_path / "study", device="cpu", threads=1)


# A real one


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def engine(cluster, where):
    with spec().open(where) as engine:
        yield engine
    cluster.wait_until_idle()


def start(engine, function, path, **task):
    future = engine.submit(function, {"started": str(path), **task})
    wait_for(path)
    return future


@pytest.mark.slow
class TestSlurm(ProcessConformance):
    @pytest.fixture
    def engine(self, engine):
        return engine


@pytest.mark.slow
def test_a_job_has_a_name_a_card_and_capped_threads(cluster, where, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "the driver's")
    # As if the driver ran in a job, from which sbatch would inherit.
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    with spec(gpus=1, memory_gb=0.25).open(where) as engine:
        future = engine.submit(toys.who, {"study": "maker", "number": 7})
        assert "maker-7" in cluster.run("squeue", "--states=all", "--noheader", "-o", "%j")
        env = outcome(engine, future)["env"]
    assert env == dict.fromkeys(toys.THREADS, "1") | {
        "CUDA_VISIBLE_DEVICES": "0",
        "WANDB_SERVICE": None,
    }
    with spec().open(where) as engine:
        assert outcome(engine, engine.submit(toys.who, {}))["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert stat.S_IMODE((where.folder / "slurm").stat().st_mode) == 0o700


@pytest.mark.slow
def test_a_free_slot_starts_the_next_at_once(engine):
    long = engine.submit(toys.nap, {"s": 8})
    for _ in range(3):
        outcome(engine, engine.submit(toys.nap, {"s": 0.1}))
    assert not long.done()


@pytest.mark.slow
def test_a_killed_worker_is_seen_and_named(engine, cluster, tmp_path):
    future = start(engine, toys.nap, tmp_path / "started", s=60)
    (worker,) = cluster.job_processes(future.job.job_id)
    worker.kill()
    before = time.monotonic()
    with pytest.raises(WorkerDied, match=r"Slurm job \d+ on n[12]: FAILED .*, log .*_0_log.err"):
        outcome(engine, future)
    assert time.monotonic() - before < 15


@pytest.mark.slow
def test_a_dead_node_takes_its_own_trial_only(cluster, where, tmp_path):
    with spec(gpus=2).open(where) as engine:  # all that a node has
        futures = [start(engine, toys.nap, tmp_path / name, s=15) for name in ("first", "second")]
        nodes = {
            job: node
            for job, _, node, _ in (line.split("|") for line in cluster.jobs().splitlines())
        }
        dead, alive = futures
        cluster.kill_node(nodes[dead.job.job_id])
        try:
            with pytest.raises(WorkerDied, match="NODE_FAIL"):
                outcome(engine, dead)
            assert outcome(engine, alive)["pid"]
        finally:
            cluster.start_node(nodes[dead.job.job_id])
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]


@pytest.mark.slow
def test_at_its_time_limit_a_trial_saves_or_is_timed_out(engine, cluster, tmp_path):
    saving = start(engine, toys.save, tmp_path / "a", saved=str(tmp_path / "saved"), takes_s=0.2)
    deaf = start(engine, toys.stay, tmp_path / "b")
    for future, end in ((saving, "now+60"), (deaf, "now+1")):  # Slurm looks at limits every 30 s
        cluster.run("scontrol", "update", f"JobId={future.job.job_id}", f"EndTime={end}")
    assert outcome(engine, saving)["status"] == "interrupted"
    assert (tmp_path / "saved").read_text() == "saved"
    with pytest.raises(TrialTimeout, match="TIMEOUT"):
        outcome(engine, deaf)


@pytest.mark.slow
def test_preempted_a_trial_saves_and_cancelled_by_another_it_died(engine, cluster, tmp_path):
    saving = start(engine, toys.save, tmp_path / "a", saved=str(tmp_path / "saved"), takes_s=0.2)
    other = start(engine, toys.nap, tmp_path / "b", s=60)
    cluster.run("scancel", "--signal=TERM", saving.job.job_id)
    cluster.run("scancel", other.job.job_id)
    assert outcome(engine, saving)["status"] == "interrupted"
    with pytest.raises(WorkerDied, match="CANCELLED"):
        outcome(engine, other)


@pytest.mark.slow
def test_what_can_never_start_is_refused_or_ended(cluster, where):
    with pytest.raises(LauncherError, match="invalid partition specified: nowhere"):
        spec(partition="nowhere").open(where)
    with spec(time_min=600).open(where) as engine:
        future = engine.submit(toys.add, {"a": 1, "b": 1})
        with pytest.raises(OverLimit, match="PartitionTimeLimit"):
            outcome(engine, future)
    cluster.wait_until_idle()


# None


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Gives what puts a command of Slurm's on the PATH, as a line of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**lines: str) -> None:
        for name, line in lines.items():
            (folder / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / name).chmod(0o755)

    return put


def test_reads_squeue():
    text = (
        "12|RUNNING|n1|None\n13|PENDING||Resources\n14|FAILED|n[1-2]|Odd|reason\n"
        "slurm_load_jobs error\n"
    )
    assert read_squeue(text) == {
        "12": JobState("RUNNING", "n1"),
        "13": JobState("PENDING", "", "Resources"),
        "14": JobState("FAILED", "n[1-2]", "Odd|reason"),
    }


@pytest.mark.parametrize(
    ("state", "raised"),
    [
        ("NODE_FAIL", WorkerDied),
        ("PREEMPTED", PlaceLost),
        ("BOOT_FAIL", PlaceLost),
        ("OUT_OF_MEMORY", MemoryExceeded),
        ("TIMEOUT", TrialTimeout),
    ],
)
def test_a_job_without_a_result_says_how_it_ended(state, raised, tmp_path, monkeypatch):
    monkeypatch.setattr(_slurm_job, "LATE_S", 0.0)
    paths = SimpleNamespace(result_pickle=tmp_path / "result", stderr=tmp_path / "log")
    job = SimpleNamespace(job_id="7", paths=paths)
    queue = SimpleNamespace(state=lambda *_, **__: JobState(state=state, reason="", node="n1"))
    with pytest.raises(raised, match=f"Slurm job 7 on n1: {state}") as error:
        _slurm_job.SlurmFuture("a", lambda: job, queue).result()
    assert type(error.value) is raised


def test_reads_of_sacct_what_has_ended():
    text = "12|CANCELLED by 0|n1\n13|RUNNING|n2\n14|OUT_OF_ME+|n1\n15|NODE_FAIL|n2\n\n16||\n"
    assert read_sacct(text) == {
        "12": JobState("CANCELLED", "n1"),
        "15": JobState("NODE_FAIL", "n2"),
    }


def test_sacct_speaks_for_what_squeue_forgot(commands):
    commands(squeue="echo '1|RUNNING|n1|None'", sacct="echo '2|FAILED|n2'")
    queue = Queue(poll_s=0.0)
    queue.add("1")
    queue.add("2")
    assert queue.state("1").state == "RUNNING"
    assert queue.state("2") == JobState("FAILED", "n2")


def test_a_job_that_nobody_knows_is_lost_after_a_while(commands, monkeypatch):
    commands(squeue="true", sacct="echo Slurm accounting storage is disabled >&2; exit 1")
    queue = Queue(poll_s=0.0)
    queue.add("1")
    assert queue.state("1").state == "UNKNOWN"
    monkeypatch.setattr(_squeue, "LOST_AFTER_S", 0.0)
    assert queue.state("1").state == "LOST"


def test_a_squeue_that_fails_loses_nothing(commands, monkeypatch):
    monkeypatch.setattr(_squeue, "LOST_AFTER_S", 0.0)
    commands(squeue="echo '1|RUNNING|n1|None'", sacct="exit 1")
    queue = Queue(poll_s=0.0)
    queue.add("1")
    queue.state("1")
    commands(squeue="echo Unable to contact slurm controller >&2; exit 1")
    assert queue.state("1").state == "RUNNING"
    assert queue.complaint == "Unable to contact slurm controller"


def test_a_job_that_sbatch_refuses_is_tried_again(commands, where, monkeypatch):
    commands(sbatch="[ $1 = --test-only ]", srun="", squeue="true", scancel="true", sacct="exit 1")
    with spec().open(where) as engine:
        commands(sbatch="echo job submit limit >&2; exit 1")
        future = engine.submit(toys.add, {"a": 1, "b": 1})
        assert not future.done()
        assert engine.describe().endswith("1 refused (job submit limit)")
        monkeypatch.setattr(_slurm_job, "RETRY_S", 0.0)
        commands(sbatch="echo Submitted batch job 7")
        assert not future.done()
        assert future.job.job_id == "7"
        monkeypatch.setattr(_squeue, "LOST_AFTER_S", 0.0)
        monkeypatch.setattr(_slurm_job, "LATE_S", 0.0)
        with pytest.raises(WorkerDied, match=r"LOST .*, no log: can its node write"):
            outcome(engine, future, 10)
    commands(sbatch="[ $1 = --test-only ]")
    with spec().open(where) as engine:
        monkeypatch.setattr(_slurm_job, "REFUSED_S", 0.0)
        with pytest.raises(WorkerDied, match="sbatch took no job"):
            engine.submit(toys.add, {}).result()


def test_without_slurm_says_so(where, commands):
    commands(srun="")
    with pytest.raises(
        LauncherError, match=r"launcher=slurm: sbatch is not on the PATH; .* launcher=local"
    ):
        spec().open(where)


def test_resources_fit_the_trials(tmp_path, commands):
    commands(sbatch="", srun="", squeue="", scancel="")
    with pytest.raises(LauncherError, match=r"launcher\.gpus=1"):
        spec().open(Where(tmp_path, "cuda", 1))
    with pytest.raises(
        LauncherError, match=r"launcher\.cpus: 1 are too few for trainer\.threads=4"
    ):
        spec().open(Where(tmp_path, "cpu", 4))


def test_a_folder_of_others_is_not_trusted(where, commands, tmp_path):
    commands(sbatch="", srun="", squeue="", scancel="")
    where.folder.mkdir()
    (where.folder / "slurm").symlink_to(tmp_path)
    with pytest.raises(LauncherError, match="must be a folder of yours"):
        spec().open(where)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"time_min": 4, "signal_delay_s": 90},
            "time_min must be at least 5 with signal_delay_s=90, got 4",
        ),
        (
            {"options": {"time": 3}},
            "'time' is no long option of sbatch, or one that the launcher sets",
        ),
        ({"options": {"x y": 3}}, "'x y' is no long option"),
        ({"options": {"comment": "a\nb"}}, "must be one line"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        spec(**changes)


def test_the_environment_is_no_job_s(monkeypatch):
    for name in (
        "SLURM_JOB_ID",
        "SLURM_CONF",
        "SQUEUE_STATES",
        "SUBMITIT_FOLDER",
        "SBATCH_ACCOUNT",
        "PGPASSFILE",
    ):
        monkeypatch.setenv(name, "x")
    kept = _squeue.environment()
    assert {"SLURM_CONF", "SBATCH_ACCOUNT", "PGPASSFILE"} <= set(kept)
    assert not {"SLURM_JOB_ID", "SQUEUE_STATES", "SUBMITIT_FOLDER"} & set(kept)
