"""Run folders: exclusive, whole or not at all, and read back from a stranger with one clear
error.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import threading

import pytest

from hft.runs import registry as runs_module
from hft.runs.folder import Run, RunError
from hft.runs.registry import create_run, create_trial, find_run, list_runs

CONFIG = {"seed": 7, "bars": {"kind": "dollar", "size": 1e6}, "tags": ["a"]}


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path / "runs")
    run.write_config(CONFIG, data_keys={"bars": "ab12"})
    return run


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_new_run_is_an_empty_folder(tmp_path):
    run = create_run(tmp_path / "deep" / "runs")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run.id)
    assert run.folder == tmp_path / "deep" / "runs" / run.id
    assert run.state == "new"
    assert names(run.folder) == ["state.json"]


def test_ids_never_collide_in_threads(tmp_path, monkeypatch):
    few = iter(["aaaa", "aaaa", "bbbb", "aaaa", "bbbb", "cccc"] + [f"{i:04x}" for i in range(500)])
    lock = threading.Lock()

    def token(n_bytes):
        with lock:
            return next(few) if n_bytes == 2 else os.urandom(n_bytes).hex()

    monkeypatch.setattr(runs_module.secrets, "token_hex", token)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(create_run(tmp_path).id)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20


def _create_many(root, queue):
    queue.put([create_run(root).id for _ in range(20)])


def test_ids_never_collide_across_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_create_many, args=(tmp_path, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [run_id for _ in workers for run_id in queue.get()]
    for worker in workers:
        worker.join(60)
    assert len(set(found)) == 40 == len(list_runs(tmp_path))


def test_runs_are_found_by_id_beginning_path_and_latest(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    for name, started in [
        ("20240101-120000-aaaa", 1),
        ("20240102-120000-bbbb", 3),
        ("20240102-120000-cccc", 2),
    ]:
        (root / name).mkdir(parents=True)
        (root / name / "state.json").write_text(
            json.dumps({"state": "done", "started_ns": started})
        )
        (root / name / "config.json").write_text("{}")
    (root / "notes").mkdir()
    assert find_run(root, "latest").id == "20240102-120000-bbbb"
    assert find_run(root, "20240101-120000-aaaa").id == "20240101-120000-aaaa"
    assert find_run(root, "20240101").id == "20240101-120000-aaaa"
    assert find_run(tmp_path, str(root / "20240101-120000-aaaa")) == Run(
        (root / "20240101-120000-aaaa").resolve()
    )
    monkeypatch.chdir(root)
    assert find_run(tmp_path, "./20240101-120000-aaaa/").id == "20240101-120000-aaaa"
    with pytest.raises(
        RunError,
        match=r"run '20240102': 2 runs begin so: 20240102-120000-bbbb, 20240102-120000-cccc",
    ):
        find_run(root, "20240102")
    with pytest.raises(
        RunError, match=r"no run '20240101-120000-aaab', did you mean '20240101-120000-aaaa'\?; the"
    ):
        find_run(root, "20240101-120000-aaab")
    for name in ("", "notes", "nothing"):
        with pytest.raises(RunError, match=r"no run .*; the latest in .*: 20240102-120000-bbbb, "):
            find_run(root, name)
    for name in ("..", "/etc", "./nothing"):
        with pytest.raises(RunError, match=r"must be a run folder with a config\.json"):
            find_run(root, name)


def test_no_runs_yet(tmp_path):
    with pytest.raises(
        RunError, match=r"no run 'latest': there are no runs in .*runs; train one first"
    ):
        find_run(tmp_path / "runs", "latest")


def test_runs_of_one_second_are_ordered_by_their_start(tmp_path):
    created = [create_run(tmp_path).id for _ in range(5)]
    assert [run.id for run in list_runs(tmp_path)] == created[::-1]


# Trials


def test_a_trial_has_a_number_in_its_study(tmp_path):
    trial = create_trial(tmp_path / "maker_v1", 7)
    assert (trial.id, trial.tracked_id, trial.state) == ("maker_v1/0007", "maker_v1-0007", "new")
    assert trial.folder == tmp_path / "maker_v1" / "0007"
    assert names(trial.folder.parent) == ["0007"]
    assert create_trial(tmp_path / "maker_v1", 12_345).id == "maker_v1/12345"
    (tmp_path / "maker_v1" / "0008").mkdir()
    for number in (7, 8):
        with pytest.raises(
            RunError,
            match=rf"000{number}: is there already, and a trial's folder is never used twice",
        ):
            create_trial(tmp_path / "maker_v1", number)
    assert names(tmp_path / "maker_v1") == ["0007", "0008", "12345"]


def test_a_trial_goes_on_from_a_copy(tmp_path):
    study = tmp_path / "maker_v1"
    first = create_trial(study, 0)
    first.write_config(CONFIG, data_keys={"bars": "ab12"})
    unit = first.fold_folder(0, 7)
    for name in ("last.ckpt", "weights.safetensors", ".last.ckpt-half"):
        (unit / name).write_text(name)
    for name in (
        "log.txt",
        "metrics.csv",
        ".lock-working",
        "metrics.json",
        "wandb/step",
        "wandb/summary.json",
    ):
        (first.folder / name).parent.mkdir(exist_ok=True)
        (first.folder / name).write_text(name)
    first.mark("interrupted")
    again = create_trial(study, 3, copy_of=first.folder)
    assert again.state == "new"
    assert again.read_about() == first.read_about()
    files = sorted(str(p.relative_to(again.folder)) for p in again.folder.rglob("*") if p.is_file())
    assert files == [
        "config.json",
        "fold-0/seed-7/last.ckpt",
        "fold-0/seed-7/weights.safetensors",
        "metrics.csv",
        "state.json",
        "wandb/summary.json",
    ]
    assert names(study) == ["0000", "0003"]


def test_trials_are_found_below_the_sweeps(tmp_path):
    runs, sweeps = tmp_path / "runs", tmp_path / "sweeps"
    for number in (0, 7):
        create_trial(sweeps / "maker_v1", number)
    create_run(runs)
    for name in ("maker_v1/0007", "maker_v1/7", str(sweeps / "maker_v1" / "0007")):
        (sweeps / "maker_v1" / "0007" / "config.json").write_text("{}")
        assert find_run(runs, name, sweeps=sweeps).id == "maker_v1/0007"
    assert find_run(runs, "latest", sweeps=sweeps).folder.parent == runs
    with pytest.raises(
        RunError,
        match=r"no sweep 'maker_v2' in .*sweeps, did you mean 'maker_v1'\?; there: maker_v1",
    ):
        find_run(runs, "maker_v2/0007", sweeps=sweeps)
    with pytest.raises(
        RunError, match="no trial 0003 in the folder of sweep 'maker_v1': it has 0000 to 0007"
    ):
        find_run(runs, "maker_v1/3", sweeps=sweeps)
    runs_module.remember_path(runs, "maker_v1/0007", "/data")
    assert runs_module.remembered_path(runs, "maker_v1/0007") == "/data"


def test_a_study_is_no_run(tmp_path):
    (tmp_path / "sweeps" / "maker_v1").mkdir(parents=True)
    (tmp_path / "sweeps" / "maker_v1" / "study.json").write_text("{}")
    with pytest.raises(
        RunError,
        match="'maker_v1' is a study, not a run: give one of its trials, such as maker_v1/0000",
    ):
        find_run(tmp_path / "runs", "maker_v1", sweeps=tmp_path / "sweeps")
