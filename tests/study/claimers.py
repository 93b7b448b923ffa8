"""Drivers without an engine, to be killed: `python -m tests.study.claimers <json>` claims, works
and settles in one process.

`die` names a step and how often it must come by before the process kills itself there, with
everything it holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna

import hft.study.claims
import hft.study.locks as locks_module
from hft.space import Dimension, Space
from hft.study import journal
from hft.study.claims import claim, settle
from hft.study.optuna_internals import set_attribute, trial_id
from hft.study.outcome import Outcome, Status
from hft.study.storage import read_address
from hft.study.study import Study, create_study, open_study
from hft.study.sweep.random import Random
from hft.study.sweep.tpe import Tpe

ROOT = Path(__file__).parents[2]
LR = Dimension("optim.lr", low=1e-4, high=1e-1, log=True)
CHANNELS = Dimension("model.channels", low=4, high=64, integer=True)
SPACE = Space((LR, CHANNELS))
MODEL = Dimension("model", choices=("a", "b", "c"), texts=("a", "b", "c"))
SEED = Dimension("seed", choices=(1, 2, 3, 4), texts=("1", "2", "3", "4"))
GRID = Space((MODEL, SEED))
COMMON = {"study": "", "timeout": "", "max_retry": 2, "constraints": {}, "enqueue": (), "space": {}}


def sweep(
    kind="random",
    *,
    n_trials=20,
    seed=1,
    storage="journal",
    objectives=("select/log_loss",),
    **changes,
):
    fields = {
        "n_trials": n_trials,
        "seed": seed,
        "storage": storage,
        "objectives": objectives,
        **COMMON,
        **changes,
    }
    return (
        Tpe(kind="tpe", n_startup=4, **fields) if kind == "tpe" else Random(kind="random", **fields)
    )


def make_study(folder: Path, *, space=SPACE, base=None, **changes) -> Study:
    conf = folder.parent / "conf"
    if not conf.exists():
        conf.mkdir(parents=True)
        (conf / "train.yaml").write_text("seed: 7\n")
    base = {"model": {"kind": "tcn", "channels": 32}, "seed": 7} if base is None else base
    return create_study(folder, sweep=sweep(**changes), space=space, base=base, conf=conf)


def start(study: Study, **task) -> subprocess.Popen:
    task = {
        "folder": str(study.folder),
        "storage": study.address.text,
        "total": study.sweep.n_trials,
    } | task
    command = [sys.executable, "-W", "error", "-m", "tests.study.claimers", json.dumps(task)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen, *, killed: bool = False) -> list[int]:
    """The numbers that the process took, in order."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if killed else 0), (
        process.returncode,
        err[-3000:],
    )
    assert err == ""
    return [int(line) for line in out.split()]


def check_complete(study: Study, n_points: int) -> None:
    """Every point finished once, none twice, none left, and the totals say so."""
    trials, counts = study.trials(), study.counts()
    assert (counts.points, counts.complete, counts.failed) == (n_points, n_points, 0)
    assert (counts.running, counts.waiting) == (0, 0)
    assert len(trials) == counts.complete + counts.retried
    ended = [t.user_attrs.get("origin", t.number) for t in trials if t.state.name == "COMPLETE"]
    assert len(set(ended)) == n_points
    repeated = [t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs]
    assert len(set(repeated)) == len(repeated)
    for trial in trials:
        if "retry_of" in trial.user_attrs:
            assert trial.params.items() >= trials[trial.user_attrs["retry_of"]].params.items()


def work(study: Study, taken, pause: float) -> Outcome:
    storage, trial = study.address.open(), study.trials()[taken.number]
    for step in range(3):
        storage.set_trial_intermediate_value(trial_id(trial), step, step + 0.5)
    time.sleep(pause)
    value = taken.params.get("optim.lr", 0.5) + taken.params.get("model.channels", 0)
    outcome = Outcome(status=Status.COMPLETE, values=(float(value),))
    set_attribute(storage, trial, "outcome", outcome.plain())
    return outcome


def drive(
    study: Study,
    *,
    driver: str,
    total: int,
    points=(),
    pause: float = 0.0,
    on_step=lambda step: None,
) -> None:
    with study.locks.hold(f"driver-{driver}"):
        while True:
            taken = claim(study, driver=driver, points=points, total=total)
            if taken is None:
                if not study.counts().running:
                    return
                time.sleep(0.02)
                continue
            sys.stdout.write(f"{taken.number}\n")
            sys.stdout.flush()
            on_step("taken")
            with study.locks.hold(f"trial-{taken.number}"):
                outcome = work(study, taken, pause)
            on_step("outcome")
            settle(study, taken.number, outcome)


def arm(step: str, count: int):
    """Dies at the `count`-th `step`; those inside hft and Optuna are reached by wrapping what comes
    next or before.
    """
    seen = {"n": 0}

    def pass_by(name: str) -> None:
        seen["n"] += name == step
        if name == step and seen["n"] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    enqueue, fail, set_attr = (
        optuna.Study.enqueue_trial,
        hft.study.claims._fail,
        optuna.Trial.set_user_attr,
    )

    def enqueued(*args, **kwargs):
        enqueue(*args, **kwargs)
        pass_by("enqueued")

    def before_fail(*args):
        pass_by("before fail")
        fail(*args)

    def before_driver(self, key, value):
        pass_by("before driver")
        set_attr(self, key, value)

    optuna.Study.enqueue_trial, hft.study.claims._fail, optuna.Trial.set_user_attr = (
        enqueued,
        before_fail,
        before_driver,
    )
    if step == "journal":
        tail_locked = journal.tail_locked

        @contextlib.contextmanager
        def locked(path):
            with tail_locked(path):
                if seen["n"] == count - 1:
                    os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b'{"op_code": 4, "worker')
                pass_by("journal")
                yield

        journal.tail_locked = locked
    return pass_by


def main(task: dict) -> None:
    locks_module.GRACE_S, locks_module.RENEW_S = 0, 0.2
    folder = Path(task["folder"])
    study = open_study(folder, storage=task["storage"])
    assert study.address == read_address(task["storage"], folder)
    on_step = arm(*task["die"]) if "die" in task else lambda step: None
    drive(study, driver=task["driver"], total=task["total"], points=task.get("points", ()),
          pause=task.get("pause", 0.0), on_step=on_step)  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
