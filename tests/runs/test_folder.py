"""A run's folder: whole or not at all, and read back from a stranger with one clear error."""

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

import polars as pl
import pytest

from hft.runs.folder import Run, RunError
from hft.runs.registry import create_run, find_run
from hft.schema import PREDICTIONS, SchemaError
from hft.system import files
from hft.system.files import FileError
from hft.system.version import VERSION
from tests.smoke import edit_about

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
        "y": 1,
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


def test_config_and_what_ran_are_read_back(run):
    assert run.read_config() == CONFIG
    about = run.read_about()
    assert about["data_keys"] == {"bars": "ab12"}
    assert about["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "polars", "numba", "pytorch-lightning"} <= set(about["versions"])
    assert set(about["git"]) == {"commit", "dirty"}
    assert run.read_version() == VERSION
    assert run.read_overrides() == []


def test_what_was_typed_is_kept_to_be_shown(run):
    run.write_config(CONFIG, data_keys={}, overrides=["bars=dollar", "seed=7"])
    assert run.read_overrides() == ["bars=dollar", "seed=7"]
    edit_about(run, "versions", hft="0.1.7")
    assert run.read_version() == "0.1.7"


def test_a_run_of_before_names_no_version_and_nothing_typed(run):
    about = run.read_about()
    del about["overrides"], about["versions"]["hft"]
    (run.folder / "config.json").write_text(json.dumps(about))
    assert (run.read_version(), run.read_overrides()) == ("0.1.0", [])


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


def test_predictions_of_before_have_no_true_class(run):
    data = io.BytesIO()
    PREDICTION_ROWS.drop("y").write_parquet(data)
    put_predictions(run, data.getvalue())
    read = run.read_predictions()
    assert read["y"].to_list() == [None]
    assert read.drop("y").equals(PREDICTION_ROWS.drop("y"))


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


def test_a_pruned_run_says_so(run):
    with run.working() as work:
        work.ends_as = "pruned"
    assert run.state == "pruned"


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
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
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
