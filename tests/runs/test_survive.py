"""A run that is cut short, repeated, or was written long ago: it goes on to the same bits, or says
why it cannot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from hft.cli import runs as runs_command
from hft.config.compose import compose, to_plain
from hft.learning.learner import Learner
from hft.runs.jobs import stored_config
from hft.runs.registry import create_run, find_run, list_runs
from hft.spec import SpecError
from hft.system.provenance import versions
from tests.smoke import QUIET, ROOT, edit_about, figures, folders, score_run, train_smoke, weights
from tests.tracking.wandb_files import read_offline

# Steps enough for a kill to fall between them, and every step saved.
LONG = (
    "experiment=smoke",
    "seeds=2",
    "trainer.chunk=128",
    "trainer.batch_chunks=1",
    "trainer.save_every_s=0",
)
OFFLINE = ("logger=wandb", "logger.mode=offline")
QUICK = ("experiment=smoke", "trainer.epochs=1")
FOUNDATION = ROOT / "tests" / "fixtures" / "foundation_run"
SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of LONG that nothing cut short."""
    return train_smoke(tmp_path_factory.mktemp("uninterrupted"), *LONG[1:])


def only_run(root):
    (run,) = list_runs(root / "runs")
    return run


def check_same(run, other):
    assert run.state == "done"
    assert figures(run) == figures(other)
    assert run.read_predictions().equals(other.read_predictions())
    for seed in (0, 1):
        assert run.read_strategy(0, seed) == other.read_strategy(0, seed)
        expected = weights(other, seed=seed)
        assert set(weights(run, seed=seed)) == set(expected)
        assert all(
            np.array_equal(value, expected[name]) for name, value in weights(run, seed=seed).items()
        )


def signal_in_second_unit(monkeypatch, number, *, step):
    begin = Learner.begin_step

    def begin_step(learner):
        begin(learner)
        if (learner.seed, learner.step) == (1, step):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Learner, "begin_step", begin_step)


# Cut short


@pytest.mark.parametrize(("number", "status", "step"), [(SIGTERM, 143, 3), (SIGINT, 130, 14)])
def test_a_signal_ends_with_its_status_and_the_run_goes_on(
    shell, tmp_path, monkeypatch, uninterrupted, number, status, step
):
    where = [*QUIET, *folders(tmp_path)]
    with monkeypatch.context() as patch:
        signal_in_second_unit(patch, number, step=step)
        ended = shell("train.py", *LONG, *OFFLINE, *where)
    run = only_run(tmp_path)
    assert ended.status == status
    assert f"go on with: python train.py resume={run.id}" in ended.err
    assert f"interrupted by {number.name} at epoch {step // 12}" in ended.err
    assert "Traceback" not in ended.err
    assert run.state == "interrupted"
    assert run.read_unit(0, 0) is not None
    assert run.read_unit(0, 1) is None
    ended = shell("train.py", "resume=latest", *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1].startswith(f"run={run.id} ")
    check_same(only_run(tmp_path), uninterrupted)
    offline = read_offline(run.folder)
    assert set(offline.ids) == {run.id}
    assert len(offline.ids) == 2
    assert offline.exit_codes == [1, 0]


@pytest.mark.slow  # tests/test_resume.py kills trainings; this one the whole command line
def test_killed_nine_and_resumed(shell, tmp_path, uninterrupted):
    command = [
        sys.executable,
        "train.py",
        *LONG,
        *QUIET,
        "trainer.epochs=12",
        "trainer.patience=12",
    ]
    process = subprocess.Popen(
        [*command, *folders(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "runs").glob("*/fold-0/seed-1/last.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    run = only_run(tmp_path)
    assert run.state == "interrupted"
    assert run.read_unit(0, 0) is not None
    assert not (run.folder / "fold-0" / "seed-1" / "weights.safetensors").exists()
    finished = (run.folder / "fold-0" / "seed-0" / "weights.safetensors").stat().st_mtime_ns
    ended = shell("train.py", "resume=latest", *folders(tmp_path))
    assert ended.status == 0, ended.err
    # The finished one is read back, not trained again.
    assert (run.folder / "fold-0" / "seed-0" / "weights.safetensors").stat().st_mtime_ns == finished
    ended = shell(
        *command[1:], f"paths.runs={tmp_path / 'whole'}", f"paths.cache={tmp_path / 'cache'}"
    )
    assert ended.status == 0, ended.err
    (whole,) = list_runs(tmp_path / "whole")
    check_same(only_run(tmp_path), whole)


def test_a_run_cut_before_its_data_were_built_goes_on(shell, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hft.runs.train.build_market", interrupt)
        ended = shell("train.py", *QUICK, *QUIET, *folders(tmp_path))
    assert ended.status == 130
    run = only_run(tmp_path)
    assert run.read_about()["data_keys"] == {}
    create_run(tmp_path / "runs")  # cut before it knew what it was asked: nothing to go on with
    ended = shell("train.py", "resume=latest", *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert run.state == "done"
    assert run.read_about()["data_keys"]["bars"]


def test_a_signal_outside_of_a_training_ends_as_well(shell, tmp_path, monkeypatch):
    monkeypatch.setattr("hft.runs.fold.review_fold", lambda *_, **__: os.kill(os.getpid(), SIGTERM))
    ended = shell("train.py", *QUICK, *folders(tmp_path))
    run = only_run(tmp_path)
    assert (ended.status, run.state) == (143, "interrupted")
    assert f"go on with: python train.py resume={run.id}" in ended.err
    assert "Traceback" not in ended.err


def test_a_signal_ends_a_sweep_too(shell, tmp_path, monkeypatch):
    command = (
        "train.py",
        "-m",
        *LONG,
        "model.channels=4,8",
        "launcher=inline",
        "sweep.study=cut",
        *QUIET,
    )
    with monkeypatch.context() as patch:
        signal_in_second_unit(patch, SIGINT, step=1)
        ended = shell(*command, *folders(tmp_path))
    assert ended.status == 130, ended.err
    assert "the same command goes on" in ended.err
    assert list_runs(tmp_path / "runs") == []
    sweeps = tmp_path / "sweeps"
    assert find_run(tmp_path / "runs", "cut/0000", sweeps=sweeps).state == "interrupted"
    ended = shell(*command, *folders(tmp_path))
    assert ended.status == 0, ended.err
    states = {
        p.name: find_run(tmp_path / "runs", f"cut/{p.name}", sweeps=sweeps).state
        for p in sweeps.glob("cut/0*")
    }
    assert sorted(states.values()) == ["done", "done", "interrupted"]


def cut_short(run):
    """As a kill -9 after the last epoch and before the scores leaves it."""
    for path in (*run.folder.glob("fold-*/seed-*/metrics.json"), run.folder / "metrics.json"):
        path.unlink()
    run.mark("running")


def test_a_run_cut_before_its_scores_gets_them(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    ended = shell("train.py", f"resume={run.id}", "logger=none", *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert figures(run) == figures(smoke.run)
    assert run.read_predictions().equals(smoke.run.read_predictions())


def test_data_that_changed_are_not_gone_on_with(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    edit_about(run, "data_keys", bars=["0" * 64])
    ended = shell("train.py", f"resume={run.id}", *folders(tmp_path))
    assert ended.status == 2
    assert (
        "its data, or the code that makes bars of them, changed since; train it anew" in ended.err
    )
    assert run.read_about()["data_keys"]["bars"] == ["0" * 64]


def test_other_overrides_are_refused_by_name(shell, smoke):
    for key in ("resume", "reproduce"):
        ended = shell(
            "train.py",
            f"{key}={smoke.run.id}",
            "bars.size=12",
            "seed=1",
            "trainer.threads=1",
            *folders(smoke.root),
        )
        assert ended.status == 2
        assert "error: bars.size=12, seed=1: the config comes from the run; " in ended.err
    ended = shell("train.py", "resume=latest", "reproduce=latest", *folders(smoke.root))
    assert "error: resume=latest and reproduce=latest: give one of them\n" in ended.err


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (
            ["logger=csv", "tags=[a]", "show_config=true"],
            {"logger": {"kind": "csv"}, "tags": ["a"], "show_config": True},
        ),
        (["trainer=gpu"], {"trainer.kind": "gpu"}),
        (
            ["trainer.threads=2", "trainer.progress=true"],
            {"trainer.threads": 2, "trainer.progress": True},
        ),
        (
            ["trainer=gpu", "trainer.compile=false"],
            {"trainer.kind": "gpu", "trainer.compile": False},
        ),
    ],
)
def test_a_run_is_taken_elsewhere_with_its_own_numbers(smoke, overrides, changed):
    plain = to_plain(compose([*overrides, *folders(smoke.root)]))
    config = stored_config(smoke.run, smoke.root / "runs", plain, overrides=overrides).plain()
    expected = smoke.run.read_config() | {"paths": plain["paths"]}
    for name, value in changed.items():
        group, _, field = name.partition(".")
        expected[group] = expected[group] | {field: value} if field else value
    assert config == expected


def test_a_run_that_is_done_is_not_resumed(shell, smoke):
    ended = shell("train.py", f"resume={smoke.run.id}", *folders(smoke.root))
    assert ended.status == 2
    assert (
        f"run {smoke.run.id} is done: score it (python backtest.py ckpt={smoke.run.id})"
        in ended.err
    )
    ended = shell("train.py", "resume=latest", *folders(smoke.root))
    assert "no run in" in ended.err
    assert "hft runs lists them" in ended.err


def test_the_list_shows_how_to_go_on(smoke, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    done = smoke.copy(tmp_path)
    folder = tmp_path / "runs" / "20240101-000000-0000"
    shutil.copytree(done.folder, folder)
    cut_short(find_run(tmp_path / "runs", folder.name))
    assert runs_command.main([str(tmp_path / "runs")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    value = done.read_metrics()["select/net_bps_day@binance_usdm_vip0"]
    assert f"select/net_bps_day@binance_usdm_vip0={value:.6g}" in shown
    assert f"python backtest.py ckpt={done.id}" in shown
    assert f"{folder.name} interrupted " in shown
    assert f"python train.py resume={folder.name}" in shown
    assert shown.index(done.id) < shown.index(folder.name)


# Repeated


def reproduce(shell, root, run, *overrides):
    ended = shell("train.py", f"reproduce={run.id}", "logger=none", *folders(root), *overrides)
    assert ended.status == 0, ended.err
    return ended.out


def test_a_run_is_repeated_from_its_folder(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    printed = reproduce(shell, tmp_path, run)
    assert f"reproduced: all {len(figures(run))} numbers of {run.id} came out the same" in printed
    again = next(other for other in list_runs(tmp_path / "runs") if other.id != run.id)
    assert figures(again) == figures(run)
    assert printed.splitlines()[-1].startswith(f"run={again.id} ")


def test_several_seeds_are_repeated(shell, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted.folder.parent, tmp_path / "runs")
    assert f"reproduced: all {len(figures(uninterrupted))} numbers" in reproduce(
        shell, tmp_path, uninterrupted
    )


def test_what_differs_is_said(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    run.write_metrics(run.read_metrics() | {"tune/log_loss": 0.125})
    edit_about(run, "versions", torch="1.0")
    edit_about(run, "git", commit="0" * 40)
    printed = reproduce(shell, tmp_path, run, "trainer.threads=2", "tags=[again]")
    assert re.search(
        rf"not reproduced: \d+ of {len(figures(run))} numbers of {run.id} differ", printed
    )
    assert "  tune/log_loss: 0.125 -> " in printed
    assert "versions: torch 1.0 -> 2." in printed
    assert f"code: commit {'0' * 40} -> " in printed
    assert "config: trainer.threads 1 -> 2" in printed
    assert "config: tags" not in printed
    assert "config: logger" not in printed


def test_where_nothing_else_differs_that_is_said(shell, smoke, tmp_path, monkeypatch):
    clean = {"commit": "0" * 40, "dirty": False}
    monkeypatch.setattr("hft.runs.folder.what_runs", lambda: {"versions": versions(), "git": clean})
    run = smoke.copy(tmp_path)
    edit_about(run, "git", **clean)
    run.write_metrics(run.read_metrics() | {"tune/log_loss": 0.125})
    assert "what else differs:\n  nothing that a run records" in reproduce(shell, tmp_path, run)


def test_only_a_run_that_is_done_is_repeated(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    ended = shell("train.py", f"reproduce={run.id}", *folders(tmp_path))
    assert ended.status == 2
    assert (
        f"run {run.id} is interrupted, not done: go on with it (python train.py resume={run.id})"
        in ended.err
    )
    assert only_run(tmp_path).id == run.id


# Written before


@pytest.fixture
def foundation(tmp_path):
    """A run of the code of issue 2, which knew nothing of seeds, baselines, events or a locked
    period.
    """
    shutil.copytree(FOUNDATION, tmp_path / "runs")
    return only_run(tmp_path)


def test_a_run_of_the_foundation_is_read(foundation, tmp_path):
    plain = {"paths": {name: str(tmp_path / name) for name in ("runs", "sweeps", "cache")}}
    config = stored_config(foundation, tmp_path / "runs", plain, overrides=[])
    assert (config.seeds, config.money_every, config.baseline.kind, config.splits.final) == (
        1,
        0,
        "none",
        0.0,
    )
    assert (config.labels.events.every, config.labels.weights, config.labels.decay) == (
        1,
        "none",
        1.0,
    )
    assert (config.trainer.ema, config.trainer.accumulate, config.trainer.overfit) == (
        0.0,
        1,
        False,
    )
    stored = foundation.read_config()
    assert config.plain()["model"].items() >= stored["model"].items()
    assert config.bars.plain() == stored["bars"]


def test_a_run_of_the_foundation_is_scored_and_repeated(foundation, tmp_path, shell):
    card = score_run(tmp_path, foundation.id)
    assert card.trades > 0
    frame = foundation.read_predictions(folder=foundation.backtest_folder("test"))
    total = frame.select(pl.sum_horizontal("p_hold", "p_buy", "p_sell")).to_series()
    assert np.allclose(total, 1)
    printed = reproduce(shell, tmp_path, foundation)
    assert f"numbers of {foundation.id}" in printed
    assert "None ->" not in printed.replace("commit None ->", "")


@pytest.mark.parametrize(
    ("group", "field", "message"),
    [
        ("labels", "horizon", "labels.horizon: must be given (bars after which a trade expires)"),
        ("model", "channels", "model.channels: must be given"),
        (None, "min_trades", "min_trades: must be given"),
    ],
)
def test_a_field_that_cannot_be_filled_is_named(foundation, tmp_path, group, field, message):
    path = foundation.folder / "config.json"
    about = json.loads(path.read_text())
    del (about["config"][group] if group else about["config"])[field]
    path.write_text(json.dumps(about))
    with pytest.raises(SpecError) as error:
        score_run(tmp_path, foundation.id)
    assert f"{path}: not a config of ours; choose another run" in str(error.value)
    assert message in str(error.value)


# Quick looks


def test_overfit_learns_one_batch_by_heart(shell, tmp_path):
    ended = shell("train.py", "experiment=smoke", "debug=overfit", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert only_run(tmp_path).read_metrics()["train/loss"] < 0.01
    assert "loss of train in the last of 100 epochs: 0.00" in ended.out


def test_the_profiler_leaves_its_table(shell, tmp_path):
    ended = shell("train.py", "experiment=smoke", "debug=profiler", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert "aten::" in (only_run(tmp_path).folder / "fold-0" / "seed-0" / "profile.txt").read_text()


@pytest.mark.parametrize(("debug", "epochs"), [("fdr", 1), ("limit", 2)])
def test_a_fast_run_goes_all_the_way(shell, tmp_path, debug, epochs):
    ended = shell("train.py", "experiment=smoke", f"debug={debug}", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    run = only_run(tmp_path)
    assert run.read_metrics()["train/epochs"] == epochs
    assert run.read_config()["tags"] == ["debug"]
    assert score_run(tmp_path, run.id).trades >= 0
