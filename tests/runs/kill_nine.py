"""Trainings killed -9 and resumed: `python -m tests.runs.kill_nine <folder> <name>...` prints what
each came to as JSON.

Everything that could break bits is on: dropout, AdamW, one cycle, averaged weights, clipping,
accumulation, early stopping. torch is imported once; every training is a fork that kills itself at
an exact point.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

import hft.system.files
from hft.dataset.splits import ROLES
from hft.learning.learner import Learner
from tests.learning.planted import TCN, adamw, planted, run

# Where each process of a training dies: after so many steps in all ("step"), in its n-th save
# ("save"), or in on_epoch of an epoch, before that epoch's state is saved ("epoch"). An epoch has
# 10 steps.
KILLS = {
    "mid_epoch_and_last_batch": [("step", 13), ("step", 30)],
    "mid_epoch": [("step", 25)],
    "last_batch": [("step", 20)],
    "end_of_epoch": [("epoch", 2)],
    "three_times": [("step", 4), ("save", 9), ("step", 30)],
    "before_the_first_save": [("save", 1)],
}


def everything_on(folder, *, resume=False, on_epoch=None, **changes):
    """Labels of tune are noise, so that early stopping ends the training."""
    dataset, role_T, _ = planted(2000)
    tune_T = role_T == ROLES.index("tune")
    dataset.y_T[tune_T] = np.random.default_rng(0).permutation(dataset.y_T[tune_T])
    settings = dict(
        epochs=12, patience=2, chunk=32, batch_chunks=2, accumulate=2, clip_norm=0.3, ema=0.9
    )
    settings |= {"save_every_s": 1e6} | changes
    optim = adamw(lr=0.03, schedule="one_cycle", warmup=0.2)
    return run(
        folder,
        dataset,
        role_T,
        model=TCN,
        optim=optim,
        on_epoch=on_epoch,
        resume=resume,
        **settings,
    )


def outcome(folder, result):
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    return {
        "weights": digest,
        "history": result.history,
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
    }


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kind, count):
    """Makes this process die at step, save or epoch number `count`."""
    saves = itertools.count(1)

    def on_epoch(epoch, metrics):
        if kind == "epoch" and epoch == count:
            die()
        return False

    end_step, fsync = Learner.end_step, os.fsync

    def counted_step(learner):
        end_step(learner)
        if kind == "step" and learner.step == count:
            die()

    def counted_save(descriptor):  # the new state is written, the old one still in its place
        if kind == "save" and next(saves) == count:
            die()
        fsync(descriptor)

    Learner.end_step = counted_step
    hft.system.files.os.fsync = counted_save
    return on_epoch


def train_in_fork(folder, *, resume, kill=None):
    """The status of a process that trains and writes outcome.json, unless it is killed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        on_epoch, save_every_s = (arm(*kill), 0.0) if kill else (None, 1e6)
        _, result = everything_on(
            folder, resume=resume, on_epoch=on_epoch, save_every_s=save_every_s
        )
        (folder / "outcome.json").write_text(json.dumps(outcome(folder, result)))
        status = 0
    finally:
        os._exit(status)


def main(root, names):
    importlib.import_module("pytorch_lightning")  # once, not in every fork
    outcomes = {}
    for name in names:
        folder, kills = root / name, KILLS[name]
        folder.mkdir()
        for i, kill in enumerate(kills):
            status = train_in_fork(folder, resume=i > 0, kill=kill)
            assert status == -signal.SIGKILL, (name, kill, status)
        assert train_in_fork(folder, resume=True) == 0, name
        outcomes[name] = json.loads((folder / "outcome.json").read_text())
    sys.stdout.write(json.dumps(outcomes) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
