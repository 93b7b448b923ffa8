"""The smoke experiment in process: configs with folders of their own, and the entry points as a
shell calls them.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from hft.config.compose import compose, make_config
from hft.config.configs import TrainConfig
from hft.market.data.synthetic import Synthetic
from hft.metrics import is_timing
from hft.report.scorecard import Scorecard
from hft.runs.backtest import backtest
from hft.runs.folder import Run
from hft.runs.jobs import backtest_job
from hft.runs.registry import find_run, list_runs
from hft.runs.train import Outcome, train
from hft.spec import PACKAGE

ROOT = PACKAGE.parent
QUIET = ("trainer.progress=false", "trainer.threads=1")


def folders(root: Path) -> list[str]:
    return [
        f"paths.runs={root / 'runs'}",
        f"paths.sweeps={root / 'sweeps'}",
        f"paths.cache={root / 'cache'}",
    ]


def smoke_config(root: Path, *overrides: str) -> TrainConfig:
    return make_config(TrainConfig, ["experiment=smoke", *QUIET, *folders(root), *overrides])


def train_smoke(root: Path, *overrides: str) -> Run:
    return find_run(root / "runs", train(smoke_config(root, *overrides)).run)


def score_run(root: Path, ckpt: str, *overrides: str) -> Scorecard:
    return backtest(
        *backtest_job(compose([f"ckpt={ckpt}", *folders(root), *overrides], entry="backtest"))
    )


@dataclass(frozen=True)
class Smoke:
    """One run, trained and scored once per session, not to be changed: `copy` gives one that may
    be.
    """

    root: Path
    run: Run
    outcome: Outcome
    printed: str
    card: Scorecard
    printed_by_backtest: str

    def copy(self, root: Path) -> Run:
        shutil.copytree(self.root / "runs", root / "runs")
        return find_run(root / "runs", self.run.id)


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


class Shell:
    """`python <script> <arguments>` in this process, warm."""

    def __init__(self, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capfd, self.monkeypatch = capfd, monkeypatch

    def __call__(self, script: str, *arguments: str) -> Ended:
        self.monkeypatch.setattr(sys, "argv", [script, *arguments])
        self.capfd.readouterr()
        status = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as ended:
            status = ended.code or 0
        return Ended(status, *self.capfd.readouterr())


def weights(run: Run, fold: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    return load_file(run.folder / f"fold-{fold}" / f"seed-{seed}" / "weights.safetensors")


def figures(run: Run) -> dict[str, float | None]:
    """What must be the same again: all but how fast it went."""
    return {name: value for name, value in run.read_metrics().items() if not is_timing(name)}


def edit_about(run: Run, part: str, **changes: object) -> None:
    about = run.read_about()
    about[part] |= changes
    (run.folder / "config.json").write_text(json.dumps(about))


def change_ticks_from(monkeypatch: pytest.MonkeyPatch, until: int) -> None:
    """Every tick from `until` on is another one: prices doubled, sizes and sides changed, and some
    trades gone.
    """
    read_day = Synthetic.read_day

    def changed(spec, day, calibration):
        ticks = read_day(spec, day, calibration)

        def later(frame):
            is_later = pl.col("ts_recv") >= until
            columns = [c for c in frame.columns if c.startswith(("price", "bid", "ask", "qty"))]
            doubled = [pl.when(is_later).then(pl.col(c) * 2).otherwise(c).alias(c) for c in columns]
            return frame.with_columns(doubled).filter(~is_later | (pl.int_range(pl.len()) % 3 > 0))

        streams = {name: later(getattr(ticks, name)) for name in ("trades", "quotes", "book")}
        assert len(streams["trades"]) < len(ticks.trades)
        return replace(ticks, **streams)

    monkeypatch.setattr(Synthetic, "read_day", changed)


def only_run(root):
    (run,) = list_runs(root / "runs")
    return run


def cut_short(run):
    """As a kill -9 after the last epoch and before the scores leaves it."""
    for path in (*run.folder.glob("fold-*/seed-*/metrics.json"), run.folder / "metrics.json"):
        path.unlink()
    run.mark("running")


def reproduce(shell, root, run, *overrides):
    ended = shell("train.py", f"reproduce={run.id}", "logger=none", *folders(root), *overrides)
    assert ended.status == 0, ended.err
    return ended.out
