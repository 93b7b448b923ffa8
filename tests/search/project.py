"""A copy of the project for sweeps in processes of their own, which a test may edit, kill and start
again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from hft.study.study import Study, open_study
from tests.smoke import QUIET, ROOT, folders

PARTS = ("conf", "hft", "hydra_plugins", "train.py")
NAME = "maker_v1"
# Two seconds of training a trial, its state saved all the time: long enough to be killed in.
SWEEP = (
    "experiment=smoke", "sweep=random", "sweep.space=null", "sweep.enqueue=[]",
    f"sweep.study={NAME}", "optim.lr=tag(log,interval(1e-4,1e-2))", "trainer.epochs=40",
    "trainer.patience=40", "trainer.save_every_s=0",
    "objective=select/log_loss", *QUIET,
)  # fmt: skip


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.drivers: list[subprocess.Popen] = []
        root.mkdir()
        for part in PARTS:
            source, target = ROOT / part, root / part
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)

    def start(self, *arguments: str, name: str = "driver") -> subprocess.Popen:
        """`python train.py -m <the sweep> <arguments>`; what it says is in `<name>.txt`."""
        command = [sys.executable, "train.py", "-m", *SWEEP, *folders(self.root), *arguments]
        environment = {k: v for k, v in os.environ.items() if k not in ("COV_CORE_SOURCE",)} | {
            "COLUMNS": "200"
        }
        with self.said(name).open("a") as file:
            driver = subprocess.Popen(
                command, cwd=self.root, stdout=file, stderr=subprocess.STDOUT, env=environment
            )
        self.drivers.append(driver)
        return driver

    def said(self, name: str = "driver") -> Path:
        return self.root / f"{name}.txt"

    def study(self) -> Study:
        return open_study(self.root / "sweeps" / NAME)

    def wait(self, what: Callable[[Study], object], *, timeout_s: float = 120) -> None:
        """Until `what` holds of the study, which may not have begun yet."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if (self.root / "sweeps" / NAME / "study.json").exists() and what(self.study()):
                return
            assert any(d.poll() is None for d in self.drivers), self.said().read_text()[-3000:]
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s} s:\n{self.said().read_text()[-3000:]}")

    def end(self, driver: subprocess.Popen, *, timeout_s: float = 180) -> int:
        return driver.wait(timeout=timeout_s)

    def close(self) -> None:
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()


def kill(driver: subprocess.Popen) -> list[psutil.Process]:
    """kill -9; gives the processes that it had started."""
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return children


def workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """The driver's worker processes that have loaded torch."""
    found = psutil.Process(driver.pid).children(recursive=True)
    return [p for p in found if p.is_running() and p.memory_info().rss > 150e6]


def is_training(study: Study) -> bool:
    """Whether a trial runs and has saved its state."""
    running = [t.number for t in study.trials() if t.state.name == "RUNNING"]
    return any(list(study.trial_folder(n).glob("fold-*/seed-*/last.ckpt")) for n in running)
