"""A run that is cut short goes on to the same bits, or says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hft.learning.learner import Learner
from hft.runs.registry import create_run, find_run, list_runs
from tests.smoke import (
    QUIET,
    ROOT,
    cut_short,
    edit_about,
    figures,
    folders,
    only_run,
    reproduce,
    train_smoke,
    weights,
)
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
SIGTERM, SIGINT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of LONG that nothing cut short."""
    return train_smoke(tmp_path_factory.mktemp("uninterrupted"), *LONG[1:])


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


@pytest.mark.slow  # test_resume.py kills trainings; this one the whole command
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


@pytest.mark.slow
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


def test_a_run_cut_before_its_scores_gets_them(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    ended = shell("train.py", f"resume={run.id}", "logger=none", *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert figures(run) == figures(smoke.run)
    assert run.read_predictions().equals(smoke.run.read_predictions())


def test_a_run_of_another_version_is_not_gone_on_with(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    about = run.read_about()
    del about["versions"]["hft"]  # as 0.1.0 wrote it
    (run.folder / "config.json").write_text(json.dumps(about))
    for name in (run.id, "latest"):
        ended = shell("train.py", f"resume={name}", *folders(tmp_path))
        assert ended.status == 2
        assert f"run {run.id} was begun by hft 0.1.0, and only that version can go" in ended.err
        assert "install hft 0.1.0, or train the run anew" in ended.err
    assert run.state == "interrupted"


def test_data_that_changed_are_not_gone_on_with(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    edit_about(run, "data_keys", bars=["0" * 64], labels="0" * 64)
    ended = shell("train.py", f"resume={run.id}", *folders(tmp_path))
    assert ended.status == 2
    assert "its bars, labels changed since (other data, code or libraries make them)" in ended.err
    assert "train it anew" in ended.err
    assert run.read_about()["data_keys"]["bars"] == ["0" * 64]


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


# Repeated


def test_several_seeds_are_repeated(shell, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted.folder.parent, tmp_path / "runs")
    assert f"reproduced: all {len(figures(uninterrupted))} numbers" in reproduce(
        shell, tmp_path, uninterrupted
    )
