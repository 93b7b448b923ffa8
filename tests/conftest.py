"""Keeps every test on one thread and offline; one trained and scored run of the smoke experiment
for all.
"""

from __future__ import annotations

import contextlib
import io
import os

import pytest

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    from hft.runs.registry import find_run
    from hft.runs.train import train
    from tests.smoke import Smoke, score_run, smoke_config

    root = tmp_path_factory.mktemp("smoke")
    with contextlib.redirect_stdout(io.StringIO()) as of_train:
        outcome = train(
            smoke_config(root, "logger=wandb", "logger.mode=offline", "tags=[smoke,test]")
        )
    with contextlib.redirect_stdout(io.StringIO()) as of_backtest:
        card = score_run(root, outcome.run)
    run = find_run(root / "runs", outcome.run)
    return Smoke(root, run, outcome, of_train.getvalue(), card, of_backtest.getvalue())


@pytest.fixture
def shell(capfd, monkeypatch):
    from tests.smoke import Shell

    return Shell(capfd, monkeypatch)
