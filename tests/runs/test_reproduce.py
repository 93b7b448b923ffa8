"""A run is had again from its folder, the runs of older versions too; what differs is said."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from hft.runs.jobs import stored_config
from hft.runs.registry import list_runs
from hft.spec import SpecError
from hft.system.provenance import versions
from tests.smoke import (
    ROOT,
    cut_short,
    edit_about,
    figures,
    folders,
    only_run,
    reproduce,
    score_run,
)


def test_a_run_is_repeated_from_its_folder(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    printed = reproduce(shell, tmp_path, run)
    assert f"reproduced: all {len(figures(run))} numbers of {run.id} came out the same" in printed
    again = next(other for other in list_runs(tmp_path / "runs") if other.id != run.id)
    assert figures(again) == figures(run)
    assert printed.splitlines()[-1].startswith(f"run={again.id} ")


def test_what_differs_is_said(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    run.write_metrics(run.read_metrics() | {"tune/log_loss": 0.125})
    edit_about(run, "versions", torch="1.0")
    edit_about(run, "git", commit="0" * 40)
    edit_about(run, "data_keys", features="0" * 64, labels="0" * 64)
    printed = reproduce(shell, tmp_path, run, "tags=[again]")
    assert re.search(
        rf"not reproduced: \d+ of {len(figures(run))} numbers of {run.id} differ", printed
    )
    assert "  tune/log_loss: 0.125 -> " in printed
    assert "versions: torch 1.0 -> 2." in printed
    assert f"code: commit {'0' * 40} -> " in printed
    for name in ("features", "labels"):
        assert f"  {name}: other data, code or libraries make them" in printed
    assert "bars: other" not in printed
    assert "config: " not in printed  # tags are only shown


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


FOUNDATION = ROOT / "tests" / "fixtures" / "foundation_run"


@pytest.fixture
def foundation(tmp_path):
    """A run of the first code that trained: it knew nothing of seeds, baselines, events or a locked
    period.
    """
    shutil.copytree(FOUNDATION, tmp_path / "runs")
    return only_run(tmp_path)


def test_a_run_of_the_foundation_is_read(foundation, tmp_path):
    plain = {"paths": {name: str(tmp_path / name) for name in ("runs", "sweeps", "cache")}}
    config = stored_config(foundation, tmp_path / "runs", plain)
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
    moved = [line for line in card.notes if "moved" in line]
    assert moved == [
        "code moved: other data, code or libraries than in training make its bars",
        "code moved: this run's version kept no keys of features and labels",
    ]
    frame = foundation.read_predictions(folder=foundation.backtest_folder("test"))
    total = frame.select(pl.sum_horizontal("p_hold", "p_buy", "p_sell")).to_series()
    assert np.allclose(total, 1)
    printed = reproduce(shell, tmp_path, foundation)
    assert f"numbers of {foundation.id}" in printed
    assert "None ->" not in printed.replace("commit None ->", "")
    # The same weights come out: its losses were summed in another order, its labels counted
    # otherwise.
    again = figures(next(run for run in list_runs(tmp_path / "runs") if run.id != foundation.id))
    for name in ("tune/log_loss", "select/log_loss", "select/net_bps_day@binance_usdm_vip0"):
        assert again[name] == pytest.approx(figures(foundation)[name], rel=1e-6), name


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
