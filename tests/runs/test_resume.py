"""A training that is cut short goes on to the same bits: killed -9, stopped by a signal, resumed by
another process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hft.system.files
from hft.learning.checkpoint import MAGIC, load_state, save_state
from hft.learning.classifier import CheckpointError
from hft.learning.fit import Interrupted
from hft.learning.learner import Learner
from hft.system.files import FileError
from tests.learning.planted import TCN, adamw, planted, run
from tests.runs.kill_nine import KILLS, everything_on, outcome

ROOT = Path(__file__).parents[2]
OF_THE_SAME_REACH = TCN.model_copy(
    update={"levels": 1, "se_window": 1}
)  # as the linear model: 3 bars
QUICK = ["mid_epoch_and_last_batch"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    _, result = everything_on(folder)
    return outcome(folder, result)


def check_killed(folder, names, uninterrupted):
    command = [sys.executable, "-m", "tests.runs.kill_nine", str(folder), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {name: uninterrupted for name in names}
    assert uninterrupted["stopped"] == "patience"


def test_killed_mid_epoch_and_at_an_epochs_last_batch(tmp_path, uninterrupted):
    check_killed(tmp_path, QUICK, uninterrupted)


@pytest.mark.slow
def test_killed_three_times_while_saving_and_before_an_epochs_end(tmp_path, uninterrupted):
    check_killed(tmp_path, [name for name in KILLS if name not in QUICK], uninterrupted)


def signal_at(monkeypatch, *signals, step):
    """The process gets `signals` when the training begins its step number `step`."""
    begin = Learner.begin_step

    def begin_step(learner):
        begin(learner)
        for number in signals if learner.step == step else ():
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Learner, "begin_step", begin_step)


@pytest.mark.parametrize(
    ("number", "status", "step"), [(signal.SIGTERM, 143, 13), (signal.SIGINT, 130, 19)]
)
def test_a_signal_saves_and_the_training_goes_on_later(
    tmp_path, monkeypatch, uninterrupted, number, status, step
):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        signal_at(patch, number, step=step)
        place = (
            "epoch 1, batch 4 of 10" if step == 13 else "epoch 2, batch 0 of 10"
        )  # an epoch's end is not cut
        message = (
            rf"interrupted by {number.name} at {place}; the state to resume from is .*last\.ckpt"
        )
        with pytest.raises(Interrupted, match=message) as caught:
            everything_on(tmp_path)
    assert caught.value.exit_status == status
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    _, result = everything_on(tmp_path, resume=True)
    assert outcome(tmp_path, result) == uninterrupted


def test_a_second_ctrl_c_does_not_wait_and_keeps_what_was_saved(
    tmp_path, monkeypatch, uninterrupted
):
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGINT, signal.SIGINT, step=15)
        with pytest.raises(Interrupted, match="SIGINT at epoch 1, batch 5") as caught:
            everything_on(tmp_path, save_every_s=0.0)
    assert caught.value.exit_status == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    _, result = everything_on(tmp_path, resume=True)
    assert outcome(tmp_path, result) == uninterrupted


def test_the_callback_sees_each_epoch_and_its_verdict_survives(tmp_path, monkeypatch):
    dataset, role_T, _ = planted()
    seen = []

    def on_epoch(epoch, metrics):
        seen.append((epoch, metrics["train/examples_per_s"] > 0))
        return epoch == 1

    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, step=9)
        with pytest.raises(Interrupted):
            run(tmp_path, dataset, role_T, on_epoch=on_epoch)
    _, result = run(tmp_path, dataset, role_T, on_epoch=on_epoch, resume=True)
    assert (seen, result.stopped, len(result.timing)) == ([(0, True), (1, True)], "callback", 2)


def test_a_training_that_had_ended_is_read_back(tmp_path, monkeypatch):
    dataset, role_T, _ = planted()
    classifier, result = run(tmp_path, dataset, role_T, model=TCN)
    (tmp_path / "weights.safetensors").unlink()
    monkeypatch.setattr(Learner, "begin_step", lambda learner: pytest.fail("trained again"))
    again, read_back = run(tmp_path, dataset, role_T, model=TCN, resume=True)
    assert (read_back.history, read_back.timing) == (result.history, result.timing)
    assert all(
        torch.equal(classifier.state_dict()[name], value)
        for name, value in again.state_dict().items()
    )
    assert (tmp_path / "weights.safetensors").is_file()


def test_without_resume_an_old_state_plays_no_part(tmp_path):
    dataset, role_T, _ = planted()
    _, result = run(tmp_path, dataset, role_T)
    (tmp_path / "last.ckpt").write_bytes(b"from another day")
    assert run(tmp_path, dataset, role_T)[1].history == result.history


def test_another_trainer_goes_on_from_the_same_weights_at_the_same_share_of_the_epoch(
    tmp_path, monkeypatch
):
    dataset, role_T, _ = planted()
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, step=9)  # an epoch has 8 steps of 4 chunks, or 4 of 8
        with pytest.raises(Interrupted):
            run(tmp_path, dataset, role_T)
    steps, begin = [], Learner.begin_step
    monkeypatch.setattr(
        Learner, "begin_step", lambda learner: (steps.append(learner.step), begin(learner))
    )
    _, result = run(tmp_path, dataset, role_T, batch_chunks=8, ema=0.9, resume=True)
    assert (steps, len(result.history)) == ([5, 6, 7, 8, 9, 10, 11], 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The state of a whole training, as bytes, and how to train that again."""
    folder = tmp_path_factory.mktemp("saved")
    dataset, role_T, _ = planted()
    run(folder, dataset, role_T, epochs=1)
    return (folder / "last.ckpt").read_bytes()


def forged(payload):
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def archive(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "damaged, its content does not match its hash"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "damaged"),
        (lambda data: b"", "not a training's state of this version"),
        (lambda data: data.partition(b"\n")[2], "not a training's state of this version"),
        (
            lambda data: forged(b"cos\nsystem\n(S'touch executed'\ntR."),
            r"not a training's state \(UnpicklingError\)",
        ),
        (lambda data: forged(archive([1, 2])), r"not a training's state \(TypeError\)"),
        (
            lambda data: forged(archive({"identity": {}, "state": {}})),
            "the state of another training: loss was None",
        ),
    ],
)
def test_a_file_that_is_not_our_state_gets_one_clear_error(
    tmp_path, monkeypatch, saved, damage, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(damage(saved))
    dataset, role_T, _ = planted()
    with pytest.raises(CheckpointError, match=rf"last\.ckpt: {message}"):
        run(tmp_path, dataset, role_T, epochs=1, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim": adamw(lr=0.5)},
            r"another training: optim was \{.*'lr': 0\.01,.* is \{.*'lr': 0\.5",
        ),
        ({"model": OF_THE_SAME_REACH}, r"another model or version \(.*Missing key"),
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path, saved, changes, message):
    (tmp_path / "last.ckpt").write_bytes(saved)
    dataset, role_T, _ = planted()
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, dataset, role_T, epochs=1, resume=True, **changes)


def test_other_labels_or_another_seed_are_refused(tmp_path, saved):
    (tmp_path / "last.ckpt").write_bytes(saved)
    dataset, role_T, _ = planted()
    dataset.y_T[0] = (dataset.y_T[0] + 1) % 3
    with pytest.raises(
        CheckpointError, match=r"another training: rows was \w{16}, is \w{16}; seed was 0, is 3"
    ):
        run(tmp_path, dataset, role_T, epochs=1, resume=True, seed=3)


def test_a_save_that_fails_leaves_the_state_before_it(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_state(path, {"weights": torch.ones(3)}, identity={"seed": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hft.system.files.os, "fsync", full)
    with pytest.raises(
        FileError, match=r"last\.ckpt: cannot be written .*No space left on device\); make room"
    ):
        save_state(path, {"weights": torch.zeros(3)}, identity={"seed": 1})
    assert torch.equal(load_state(path, identity={"seed": 1})["weights"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert load_state(tmp_path / "none.ckpt", identity={}) is None
