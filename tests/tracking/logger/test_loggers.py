"""Loggers: what was given is found in the files again, over two processes of one run, and no key
is.
"""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from matplotlib.figure import Figure

from hft.spec import PACKAGE, Room
from hft.system.provenance import git_state, versions
from hft.tracking.logger import open_tracker
from hft.tracking.logger import wandb as wandb_tracker
from hft.tracking.logger.csv import Csv
from hft.tracking.logger.none import NoLogger
from hft.tracking.logger.wandb import Wandb
from hft.tracking.tracker import JOBS, Tracker, TrackingError, best_of
from tests.tracking.wandb_files import read_offline

RUN_ID = "20240101-120000-aaaa"
CONFIG = {"seed": 7, "bars": {"kind": "dollar", "size": 1e6}}
SCORES = {
    "select/log_loss": 0.99,
    "select/net_bps_day@binance_usdm_vip0": -12.5,
    "verdict": "loses",
}
CONFUSION = pl.DataFrame({"true": ["buy", "sell"], "n": [3, None], "share": [0.75, float("nan")]})
OFFLINE = Wandb(kind="wandb", project="hft-test", entity="", mode="offline")
OF_THIS_FILE = "from pathlib import Path; from tests.tracking.logger.test_loggers import *"
PNG = b"\x89PNG\r\n\x1a\n"


def equity() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1], [0, -1])
    return figure


def train(spec, folder, epochs=range(3)):
    with open_tracker(
        spec, RUN_ID, folder, config=CONFIG, tags=["smoke"], group="study"
    ) as tracker:
        for epoch in epochs:
            tracker.epoch({"train/loss": 1 / (epoch + 1), "tune/log_loss": 1.0 + epoch}, epoch)
        tracker.table("select/confusion", CONFUSION)
        tracker.summary(SCORES)


def backtest(spec, folder):
    config = {"ckpt": RUN_ID, "name": "vip0"}
    with open_tracker(spec, RUN_ID, folder, config=config, job="backtest_vip0") as tracker:
        tracker.summary({"test/net_bps_day@binance_usdm_vip0": -3.5})
        tracker.table(
            "test/scorecard", pl.DataFrame({"schedule": ["binance_usdm_vip0"], "net_bps": [-3.5]})
        )
        tracker.figure("test/equity", equity())


# `from_run` stands for the logger of the run that a backtest scores.
YAMLS = sorted(
    p for p in (PACKAGE.parent / "conf" / "logger").glob("*.yaml") if p.stem != "from_run"
)


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_yaml_is_a_kind_of_the_room(path):
    plain = yaml.safe_load(path.read_text())
    spec = Room("hft.tracking.logger").load(path.stem)
    assert plain["kind"] == path.stem
    assert spec.model_validate(plain).plain() == plain


def test_the_room_offers_these_loggers():
    assert Room("hft.tracking.logger").names() == [p.stem for p in YAMLS]


def test_importing_the_module_loads_no_logger():
    heavy = "('wandb', 'matplotlib', 'torch', 'PIL')"
    code = f"import sys, hft.tracking.logger; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"


def test_no_logger_writes_nothing(tmp_path):
    train(NoLogger(kind="none"), tmp_path)
    backtest(NoLogger(kind="none"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_block_finishes_the_tracker_with_the_right_code():
    class Recorder(Tracker):
        codes: tuple[int, ...] = ()

        def finish(self, exit_code=0):
            self.codes += (exit_code,)

    tracker = Recorder()
    with tracker:
        pass
    with pytest.raises(KeyError), tracker:
        raise KeyError
    assert tracker.codes == (0, 1)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_files_hold_what_was_given(tmp_path):
    spec = Csv(kind="csv")
    train(spec, tmp_path)
    backtest(spec, tmp_path)
    metrics = rows_of(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in metrics] == ["0", "1", "2"]
    assert [float(row["tune/log_loss"]) for row in metrics] == [1.0, 2.0, 3.0]
    summary = {row["name"]: row["value"] for row in rows_of(tmp_path / "summary.csv")}
    assert summary["verdict"] == "loses"
    assert float(summary["select/log_loss"]) == 0.99
    assert float(summary["test/net_bps_day@binance_usdm_vip0"]) == -3.5
    assert (
        tmp_path / "tables" / "test-scorecard.csv"
    ).read_text() == "schedule,net_bps\nbinance_usdm_vip0,-3.5\n"
    assert pl.read_csv(tmp_path / "tables" / "select-confusion.csv")["n"].to_list() == [3, None]
    assert (tmp_path / "figures" / "test-equity.png").read_bytes().startswith(PNG)


def test_csv_goes_on_where_a_killed_run_stopped(tmp_path):
    spec = Csv(kind="csv")
    train(spec, tmp_path, epochs=range(3))
    (tmp_path / ".metrics.csv-dead").write_text(
        "epoch,tra"
    )  # what a kill in the middle of a write leaves
    train(spec, tmp_path, epochs=range(2, 5))
    with open_tracker(spec, RUN_ID, tmp_path, config={}) as tracker:
        tracker.epoch({"fold-1/train/loss": 0.5}, 0)
    metrics = rows_of(tmp_path / "metrics.csv")
    assert [row["epoch"] for row in metrics] == ["0", "1", "2", "3", "4"]
    assert [float(row["tune/log_loss"]) for row in metrics] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [row["fold-1/train/loss"] for row in metrics] == ["0.5", "", "", "", ""]


def test_csv_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with open_tracker(Csv(kind="csv"), RUN_ID, tmp_path, config={}) as tracker:
        (tmp_path / "tables").write_text("")
        with pytest.raises(ValueError, match=r"tables.*cannot be written"):
            tracker.table("t", CONFUSION)


@pytest.fixture
def two_processes(tmp_path, monkeypatch):
    """A run folder after a training in this process and a backtest in another, with a key in the
    environment.
    """
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    folder = tmp_path / RUN_ID
    train(OFFLINE, folder)
    code = f"{OF_THIS_FILE}; backtest(OFFLINE, Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=PACKAGE.parent)
    return folder


def test_offline_files_hold_what_was_given(two_processes):
    run = read_offline(two_processes)
    assert run.ids == [RUN_ID, RUN_ID]
    assert (run.project, run.name) == ("hft-test", f"dollar {RUN_ID}")
    assert (run.group, run.job_type) == ("study", "train")  # the backtest renamed nothing
    assert run.tags == ["smoke", "bars=dollar"]
    code = {"git": git_state(), "versions": versions()}
    assert run.config == CONFIG | {
        "code": code,
        "backtest_vip0": {"ckpt": RUN_ID, "name": "vip0", "code": code},
    }
    assert run.curves["tune/log_loss"] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert run.curves["train/loss"][2] == (2, pytest.approx(1 / 3))
    assert run.axis["*"] == run.axis["tune/log_loss"] == "epoch"
    assert run.steps == list(
        range(6)
    )  # three epochs, a table; a table, an image of the second process
    assert SCORES.items() <= run.summary.items()
    assert run.summary["test/net_bps_day@binance_usdm_vip0"] == -3.5
    assert run.tables["select/confusion"]["columns"] == ["true", "n", "share"]
    assert run.tables["select/confusion"]["data"][0] == ["buy", 3, 0.75]
    assert run.tables["test/scorecard"]["data"] == [["binance_usdm_vip0", -3.5]]
    assert run.images["test/equity"].startswith(PNG)
    assert run.exit_codes == [0, 0]
    # What `wandb sync` will upload lies with the run, and the key nowhere.
    assert len(run.staged) == 2
    assert all(path.is_relative_to(two_processes) and path.is_file() for path in run.staged)
    held = [p.read_bytes() for p in two_processes.rglob("*") if p.is_file()]
    assert len(held) > 10
    assert not [data for data in held if b"k" * 40 in data]


@pytest.mark.parametrize(
    ("name", "way"),
    {
        "train/loss": "min",
        "fold-0/seed-7/tune/log_loss": "min",
        "tune/calibration_error": "min",
        "baseline/select/brier": "min",
        "fold-0/seed-7/tune/pr_auc_buy": "max",
        "tune/mcc": "max",
        "select/net_bps_day@binance_usdm_vip0": "max",
        "train/lr": "last",
        "train/grad_norm_max": "last",
        "train/examples_per_s": "max",
        "select/majority_log_loss": "last",
    }.items(),
)
def test_which_value_stands_for_a_curve(name, way):
    assert best_of(name) == way


def give(folder, losses, *, first=0, kill=False):
    """An epoch per loss; `kill` ends the process as `kill -9` does."""
    tracker = open_tracker(OFFLINE, RUN_ID, folder, config=CONFIG)
    for epoch, loss in enumerate(losses, first):
        both_ways = {"train/loss": loss, "tune/mcc": loss}
        others = {"f/tune/mcc": loss, "tune/log_loss": loss, "train/lr": epoch / 10}
        tracker.epoch(both_ways | others, epoch)
    tracker.summary({"data/rows": 10})
    if kill:
        time.sleep(5 * wandb_tracker.FLUSH_S)
        os.kill(os.getpid(), signal.SIGKILL)
    tracker.summary({"tune/log_loss": 0.8})
    tracker.finish()


def test_the_summary_keeps_the_best_over_a_kill(tmp_path):
    code = (
        f"{OF_THIS_FILE}; wandb_tracker.FLUSH_S = 0.1; "
        "give(Path(sys.argv[1]), [3, 1, 2], kill=True)"
    )
    own = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # W&B's process of this one
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, cwd=PACKAGE.parent, env=own
    )
    assert done.returncode == -signal.SIGKILL
    give(tmp_path, [2.5, float("nan"), 1.5], first=3)
    run = read_offline(tmp_path)
    assert run.ids == [RUN_ID, RUN_ID]
    assert run.steps == list(range(6))  # no step twice: W&B would drop the later one
    assert [epoch for epoch, _ in run.curves["train/lr"]] == list(range(6))
    assert run.summary["train/loss"] == {"min": 1}
    assert run.summary["tune/mcc"] == {"max": 3}
    # Given as a result, which the best of its curve is not.
    assert run.summary["tune/log_loss"] == 0.8
    # Neither what nobody sorts by, nor the curves of one among several folds.
    assert {"train/lr", "f/tune/mcc"} <= set(run.curves)
    assert {"train/lr", "f/tune/mcc"}.isdisjoint(run.summary)
    # The server takes the summary of the file that is synced last: it has to be whole.
    first = sorted((tmp_path / "wandb").glob("offline-run-*"))[0]
    shutil.rmtree(first)
    assert read_offline(tmp_path).summary == run.summary


def test_an_artifact_carries_what_made_it(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"w" * 100)
    for spec in (NoLogger(kind="none"), Csv(kind="csv"), OFFLINE):
        with open_tracker(spec, RUN_ID, tmp_path / spec.kind, config=CONFIG) as tracker:
            tracker.artifact("fold-0/seed-7/weights", weights, {"data_key": "abc"})
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "csv").exists()
    run = read_offline(tmp_path / "wandb")
    assert list(run.artifacts) == [f"{RUN_ID}-fold-0-seed-7-weights"]
    (artifact,) = run.artifacts.values()
    assert (artifact["type"], artifact["metadata"]) == ("model", {"data_key": "abc"})
    staged = artifact["files"]["weights.safetensors"]
    assert staged.read_bytes() == weights.read_bytes()
    assert staged.is_relative_to(tmp_path / "wandb")


def test_a_failed_job_is_seen_in_its_file(tmp_path):
    with pytest.raises(KeyError), open_tracker(OFFLINE, RUN_ID, tmp_path, config=CONFIG):
        raise KeyError
    run = read_offline(tmp_path)
    assert run.exit_codes == [1]


@pytest.fixture
def bare_environment(tmp_path, monkeypatch):
    """No key, no mode, and a server that is not there; W&B reads its settings anew."""
    import wandb

    wandb.teardown()
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_tracker, "INIT_TIMEOUT_S", 1)
    yield monkeypatch
    wandb.teardown()


def automatic(mode="auto"):
    return Wandb(kind="wandb", project="hft-test", entity="", mode=mode)


def said(caplog):
    return [
        r.getMessage()
        for r in caplog.records
        if r.name == "hft.tracking.logger.wandb" and r.levelno >= logging.WARNING
    ]


def test_without_a_key_the_run_stays_offline_and_says_so_once(tmp_path, bare_environment, caplog):
    train(automatic(), tmp_path / "run", epochs=[0])
    assert said(caplog) == [
        "W&B: there is no key, so the run stays offline; upload it: "
        f"wandb sync {tmp_path / 'run'}/wandb/offline-run-*"
    ]
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_the_line_of_a_study_uploads_every_trial(tmp_path):
    study = tmp_path / "my sweeps" / "maker_v1"
    files = [
        study / trial / "wandb" / "offline-run-20240101_120000-a" for trial in (".", "0000", "0011")
    ]
    for file in files:
        file.mkdir(parents=True)
    line = wandb_tracker.sync_line(study, of_study=True)
    told = subprocess.run(
        ["bash", "-c", line.replace("wandb sync", "printf '%s\\n'")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {Path(line) for line in told.stdout.splitlines()} == set(files)


SMOKE = {
    "experiment": "smoke",
    "data": {"kind": "synthetic"},
    "bars": {"kind": "volume"},
    "labels": {"kind": "meta"},
    "features": {"ofi": {"kind": "ofi"}},
    "model": {"kind": "tcn"},
    "logger": {"kind": "wandb"},
    "trainer": {"kind": "cpu"},
}


@pytest.mark.parametrize(
    ("job", "config", "group", "name", "of"),
    [
        ("train", SMOKE, "", "smoke volume/meta/tcn r1", "smoke"),
        ("folds", SMOKE | {"experiment": ""}, "", "volume/meta/tcn r1", "no experiment"),
        ("trial", SMOKE, "maker_v1", "smoke volume/meta/tcn r1", "maker_v1"),
        ("study", {"sweep": {"kind": "tpe"}}, "maker_v1", "study r1", "maker_v1"),
    ],
)
def test_a_run_is_named_by_what_it_is_of(tmp_path, job, config, group, name, of):
    with open_tracker(OFFLINE, "r1", tmp_path, config=config, tags=["a"], group=group, job=job):
        pass
    run = read_offline(tmp_path)
    assert (run.name, run.group, run.job_type) == (name, of, job)
    kinds = ["data=synthetic", "bars=volume", "labels=meta", "model=tcn"]
    words = {"study": ["sweep=tpe"], "folds": kinds}.get(job, ["experiment=smoke", *kinds])
    assert run.tags == ["a", *words]
    assert config.items() <= run.config.items()
    assert job in JOBS


def test_without_a_network_the_run_stays_offline(tmp_path, bare_environment, caplog):
    bare_environment.setenv("WANDB_API_KEY", "k" * 40)
    train(automatic(), tmp_path / "run", epochs=[0])
    assert len(said(caplog)) == 1
    assert "the server gives no answer (" in said(caplog)[0]
    assert read_offline(tmp_path / "run").curves["tune/log_loss"] == [(0, 1.0)]


def test_online_without_a_key_is_one_clear_error(tmp_path, bare_environment):
    with pytest.raises(
        TrackingError, match=r"logger\.mode=online: there is no key; log in .* logger\.mode=offline"
    ):
        train(automatic("online"), tmp_path)


def test_a_malformed_key_is_one_clear_error(tmp_path, bare_environment):
    bare_environment.setenv("WANDB_API_KEY", "short")
    with pytest.raises(
        TrackingError, match=r"logger=wandb: .*40\+ characters.*logger\.mode=offline"
    ):
        train(automatic(), tmp_path)


def test_a_key_is_found_in_a_netrc_file(tmp_path, bare_environment):
    assert not wandb_tracker.has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert not wandb_tracker.has_key()
    bare_environment.delenv("WANDB_BASE_URL")
    assert wandb_tracker.has_key()
    (tmp_path / "netrc").write_text("machine\n")
    assert not wandb_tracker.has_key()


def test_wandb_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"cannot be written .*paths\.runs"):
        train(OFFLINE, tmp_path / "file")


@pytest.mark.parametrize("project", ["", "a/b", "a?b"])
def test_a_project_name_is_checked(project):
    with pytest.raises(ValueError, match="project"):
        Wandb(kind="wandb", project=project, entity="", mode="auto")
