"""What the tests of the engines run in place of trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hft.spec import UserError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
SLEEPER = "import time; time.sleep(60)"


class Saved(BaseException):
    pass


def add(task: dict) -> dict:
    return {"status": "complete", "values": [task["a"] + task["b"]], "reason": ""}


def who(task: dict) -> dict:
    names = (*THREADS, "CUDA_VISIBLE_DEVICES", "WANDB_SERVICE")
    warm = [name for name in task.get("modules", []) if name in sys.modules]
    return {
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "env": {n: os.environ.get(n) for n in names},
        "warm": warm,
    }


def nap(task: dict) -> dict:
    _announce(task)
    time.sleep(task["s"])
    return {"pid": os.getpid()}


def fail(task: dict) -> dict:
    raise {"user": UserError, "value": ValueError, "exit": SystemExit, "ctrl-c": KeyboardInterrupt}[
        task["how"]
    ]("width: must be > 0, got -1")


def not_json(task: dict) -> dict:
    return {"value": object()}


def die(task: dict) -> dict:
    """Ends the worker by a signal, or without a word."""
    if "signal" in task:
        os.kill(os.getpid(), task["signal"])
    os._exit(task["code"])


def save(task: dict) -> dict:
    """A training: saves on SIGTERM and ends."""

    def on_term(*_: object) -> None:
        raise Saved

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, on_term)
    _announce(task)
    try:
        time.sleep(60)
    except Saved:
        time.sleep(task["takes_s"])
        Path(task["saved"]).write_text("saved")
    return {"status": "interrupted"}


def stay(task: dict) -> dict:
    """Does not end when asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _announce(task)
    time.sleep(60)
    return {}


def grow(task: dict) -> dict:
    """Holds memory, itself or in a child."""
    code = f"held = bytearray(b'x') * {task['mib'] * 2**20}; import time; time.sleep(60)"
    if task["child"]:
        subprocess.run([sys.executable, "-c", code])
    exec(code)
    return {}


def leave_child(task: dict) -> dict:
    """Has a child, which writes its id, and waits."""
    child = subprocess.Popen([sys.executable, "-c", SLEEPER])
    Path(task["started"]).write_text(f"{os.getpid()} {child.pid}")
    child.wait()
    return {}


def _announce(task: dict) -> None:
    if "started" in task:
        path = Path(task["started"])
        path.with_suffix(".new").write_text(str(os.getpid()))
        path.with_suffix(".new").rename(path)
