"""Run folders: exclusive, whole or not at all, and read back from a stranger with one clear
error.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest

from hft.cli import runs as runs_command
from hft.runs import folder as run_module
from hft.runs import registry as runs_module
from hft.runs.folder import Run, RunError
from hft.runs.registry import create_run, create_trial, find_run, list_runs
from hft.schema import PREDICTIONS, SchemaError
from hft.spec import PACKAGE
from hft.system import files, provenance
from hft.system.files import FileError, write_atomic
from hft.system.provenance import git_state, versions

CONFIG = {"seed": 7, "bars": {"kind": "dollar", "size": 1e6}, "tags": ["a"]}
PREDICTION_ROWS = pl.DataFrame(
    {
        "bar": 0,
        "ts": 1,
        "fold": 0,
        "seed": 7,
        "split": "test",
        "path": 0,
        "p_hold": 0.5,
        "p_buy": 0.3,
        "p_sell": 0.2,
    },
    schema=PREDICTIONS,
)


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


def test_config_and_what_ran_are_read_back(run):
    assert run.read_config() == CONFIG
    about = run.read_about()
    assert about["data_keys"] == {"bars": "ab12"}
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "polars", "numba", "pytorch-lightning"} <= set(about["versions"])
    assert set(about["git"]) == {"commit", "dirty"}


def test_versions_are_read_without_importing():
    code = (
        "import sys, hft.runs.registry, hft.system.provenance; hft.system.provenance.versions(); "
        "print([m for m in ('torch', 'numba', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"
    assert "optuna_that_is_not_there" not in versions()


def test_git_state_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "hft")
    assert git_state() == {"commit": None, "dirty": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    (tmp_path / "a.py").write_text("A = 1\n")
    for command in (["init", "-q"], ["add", "a.py"], ["commit", "-q", "-m", "a", "--no-verify"]):
        subprocess.run([*git, *command], check=True)
    clean = git_state()
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"])
    assert clean["dirty"] is False
    (tmp_path / "b.py").write_text("B = 1\n")
    assert git_state() == {"commit": clean["commit"], "dirty": True}


def test_no_git_is_fine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}


def test_metrics_keep_what_is_not_finite_as_null(run):
    run.write_metrics(
        {
            "select/mcc": float("nan"),
            "n": 3,
            "per_class": [0.5, float("inf")],
            "deep": {"x": (1.0,)},
        }
    )
    assert run.read_metrics() == {
        "select/mcc": None,
        "n": 3,
        "per_class": [0.5, None],
        "deep": {"x": [1.0]},
    }


def test_predictions_are_read_back(run):
    run.write_predictions(PREDICTION_ROWS)
    assert run.read_predictions().equals(PREDICTION_ROWS)


def test_predictions_must_keep_their_contract(run):
    with pytest.raises(SchemaError, match="missing"):
        run.write_predictions(PREDICTION_ROWS.drop("p_buy"))
    assert "predictions.parquet" not in names(run.folder)


def test_folders_of_folds_and_backtests(run):
    assert run.fold_folder(1, 42) == run.folder / "fold-1" / "seed-42"
    assert run.backtest_folder("vip0.taker") == run.folder / "backtest" / "vip0.taker"
    assert run.fold_folder(1, 42).is_dir()
    assert run.backtest_folder("vip0.taker").is_dir()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "../x", "a/b", "/etc", "a\n", "x" * 65])
def test_a_backtest_name_is_no_path(run, name):
    with pytest.raises(RunError, match="backtest name: must be letters"):
        run.backtest_folder(name)


def test_state_follows_the_block(run):
    with run.working():
        assert run.state == "running"
    assert run.state == "done"
    for error, state in ((KeyboardInterrupt, "interrupted"), (ValueError, "failed")):
        with pytest.raises(error), run.working():
            raise error
        assert run.state == state


def test_two_processes_do_not_work_on_one_run(run):
    with (
        run.working(),
        pytest.raises(RunError, match="another process is working on it"),
        Run(run.folder).working(),
    ):
        pass
    assert run.state == "done"


def _train_and_die(root):
    run = create_run(root)
    with run.working():
        run.write_config(CONFIG, data_keys={})
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_does_not_look_complete(tmp_path):
    worker = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(tmp_path,))
    worker.start()
    worker.join(60)
    run = find_run(tmp_path, "latest")
    assert json.loads((run.folder / "state.json").read_text())["state"] == "running"
    assert run.state == "interrupted"


def test_the_list_says_how_to_go_on(tmp_path, capsys):
    finished, broken, killed = (create_run(tmp_path) for _ in range(3))
    for run in (finished, killed):
        run.write_config(CONFIG | {"objective": "select/log_loss"}, data_keys={})
    with finished.working():
        finished.write_metrics({"select/log_loss": 0.75})
    killed.mark("running")
    assert runs_command.main([str(tmp_path)]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "resume=" in shown
    assert "backtest.py" in shown
    assert "unreadable" in shown
    assert "interrupted" in shown
    assert "0.75" in shown
    assert broken.state == "new"
    assert runs_command.main(["a", "b"]) == 2


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


def test_openings_of_a_period_are_counted(run):
    assert run.read_openings("test") == []
    assert run.count_opening("test", {"ckpt": "x"}) == 1
    assert run.count_opening("test", {"ckpt": "y"}) == 2
    assert run.count_opening("final", {"ckpt": "y"}) == 1
    first, second = run.read_openings("test")
    assert first["config_sha256"] != second["config_sha256"]
    assert first["time"].endswith("+00:00")
    assert not [n for n in names(run.folder) if n.startswith(".")]


def test_openings_at_once_are_all_counted(run):
    counts = []
    threads = [
        threading.Thread(target=lambda: counts.append(run.count_opening("test", {})))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 9))


def test_a_broken_count_does_not_restart(run):
    (run.folder / "test_openings.json").write_text('{"openings": 3}')
    with pytest.raises(RunError, match=r"test_openings\.json: must hold a list 'openings'"):
        run.count_opening("test", {})


FOREIGN = {
    "missing": (None, "missing, so"),
    "truncated": ('{"config": {"seed": 1', "cannot be read"),
    "empty": ("", "cannot be read"),
    "no mapping": ("[1]", "must hold a mapping, got list"),
    "no config": ('{"versions": {}}', "must hold a mapping 'config'"),
    "config is no mapping": ('{"config": "os.system"}', "must hold a mapping 'config'"),
    "deep": ("[" * 100_000, "cannot be read"),
    "long number": ('{"config": {"seed": ' + "9" * 10_000 + "}}", "cannot be read"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
}


@pytest.mark.parametrize(("text", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_config_is_one_clear_error(run, text, message):
    path = run.folder / "config.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError, match=re.escape(str(path)) + ".*" + re.escape(message)) as error:
        run.read_config()
    assert "\n" not in str(error.value)


def test_an_endless_config_is_not_read_whole(run, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_JSON_BYTES", 10)
    with pytest.raises(RunError, match="must have at most 10 bytes"):
        run.read_config()


@pytest.mark.parametrize("text", ['{"state": "finished"}', '{"state": ["done"]}', "{}"])
def test_a_foreign_state_is_refused(run, text):
    (run.folder / "state.json").write_text(text)
    with pytest.raises(RunError, match=r"state\.json: state must be one of .*, got"):
        _ = run.state


def test_foreign_predictions_are_one_clear_error(run):
    path = run.folder / "predictions.parquet"
    with pytest.raises(RunError, match=r"predictions\.parquet: missing or unreadable"):
        run.read_predictions()
    run.write_predictions(PREDICTION_ROWS)
    data = path.read_bytes()
    for corrupt in (data[:-20], b"", data[:50] + bytes([data[50] ^ 1]) + data[51:]):
        path.write_bytes(corrupt)
        with pytest.raises(RunError, match=r"predictions\.parquet: does not match its hash"):
            run.read_predictions()


def put_predictions(run, data):
    """As a stranger may: any bytes, with the hash that fits them."""
    path = run.folder / "predictions.parquet"
    path.write_bytes(data)
    line = subprocess.run(
        ["sha256sum", path.name], cwd=run.folder, capture_output=True, check=True
    ).stdout
    path.with_suffix(".sha256").write_bytes(line)


def test_predictions_of_a_stranger_are_checked_too(run):
    put_predictions(run, b"PAR1 no parquet PAR1")
    with pytest.raises(RunError, match=r"predictions\.parquet: cannot be read"):
        run.read_predictions()
    data = io.BytesIO()
    PREDICTION_ROWS.rename({"p_buy": "p_long"}).write_parquet(data)
    put_predictions(run, data.getvalue())
    with pytest.raises(SchemaError, match=r"predictions\.parquet: .*unknown \['p_long'\]"):
        run.read_predictions()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, run):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(FileError, match=r"cannot be written .*paths\.runs=<folder>"):
            create_run(root)
    (run.folder / "fold-0").write_text("")
    with pytest.raises(FileError, match=r"fold-0.*cannot be written"):
        run.fold_folder(0, 1)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_readers_see_whole_files_only(tmp_path):
    path = tmp_path / "a.json"
    texts = [bytes([65 + i]) * 200_000 for i in range(4)]
    write_atomic(path, texts[0])
    stop = time.monotonic() + 0.3

    def write():
        while time.monotonic() < stop:
            for text in texts:
                write_atomic(path, text, durable=False)

    writer = threading.Thread(target=write)
    writer.start()
    while time.monotonic() < stop:
        assert path.read_bytes() in texts
    writer.join()


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


def test_a_pruned_run_says_so(run):
    with run.working() as work:
        work.ends_as = "pruned"
    assert run.state == "pruned"


def test_a_study_is_no_run(tmp_path):
    (tmp_path / "sweeps" / "maker_v1").mkdir(parents=True)
    (tmp_path / "sweeps" / "maker_v1" / "study.json").write_text("{}")
    with pytest.raises(
        RunError,
        match="'maker_v1' is a study, not a run: give one of its trials, such as maker_v1/0000",
    ):
        find_run(tmp_path / "runs", "maker_v1", sweeps=tmp_path / "sweeps")
