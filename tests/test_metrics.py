"""The registry of metrics against what runs and backtests log: nothing is missing, nothing is a
second time elsewhere.
"""

from __future__ import annotations

import pytest

from hft.config.objectives import known_metrics
from hft.metrics import (
    ALL,
    BACKTEST,
    METRICS,
    drawdown_metric,
    find,
    is_money,
    is_timing,
    lower_is_better,
    metric,
    money_metric,
    results_of,
)
from hft.report.scorecard import ScheduleScore, Scorecard
from hft.tracking.tracker import best_of
from tests.smoke import smoke_config
from tests.tracking.wandb_files import read_offline


def place_of(logged: str) -> str:
    return logged.rpartition("/")[0].rpartition("/")[2]


def test_a_name_stands_once():
    assert len(METRICS) == len(ALL)


def test_every_number_of_a_run_is_in_the_registry(smoke):
    stored = smoke.run.read_metrics()
    assert len(stored) > 100
    for logged in stored:
        found = find(logged)
        assert found is not None, logged
        assert place_of(logged) in found.results, logged
        assert ("@" in logged) == found.by_schedule, logged


def test_every_curve_of_a_run_is_in_the_registry(smoke):
    curves = read_offline(smoke.run.folder).curves
    assert len(curves) > 20
    for logged in curves:
        found = find(logged)
        assert found is not None, logged
        assert place_of(logged) in found.curves, logged


def test_every_number_of_a_scorecard_is_in_the_registry():
    given = {"start", "end", "maker_bps", "taker_bps"}  # what was asked, not what was measured
    numbers = {
        name: spec is ScheduleScore
        for spec in (Scorecard, ScheduleScore)
        for name, field in spec.model_fields.items()
        if field.annotation in (int, float, float | None) and name not in given
    }
    shared = {"trades", "turnover_day"}  # of a run and of a backtest
    assert shared <= set(numbers)
    assert {m.name: m.by_schedule for m in results_of(BACKTEST)} == numbers


@pytest.mark.parametrize("overrides", [[], ["seeds=2", "baseline=gbdt"]])
def test_what_a_run_logs_is_known_before_it_runs(smoke, tmp_path, overrides):
    known = known_metrics(smoke_config(tmp_path, *overrides))
    assert len(set(known)) == len(known)
    if not overrides:
        assert set(known) == set(smoke.run.read_metrics())
    of_runs = {m.name for m in ALL if set(m.results) - {BACKTEST}}
    assert {find(logged).name for logged in known} == of_runs


@pytest.mark.parametrize(
    ("logged", "lower"),
    {
        "select/log_loss": True,
        "select/log_loss/worst": True,
        "baseline/select/brier": True,
        "fold-0/seed-7/tune/calibration_error": True,
        "select/turnover_day": True,
        drawdown_metric("select", "maker_free"): True,
        money_metric("select", "maker_free"): False,
        money_metric("select", "maker_free") + "/worst": False,
        money_metric("select", "maker_free") + "/sd": True,
        "select/mcc": False,
        "tune/pr_auc_buy": False,
        "train/stages_s": True,
        "select/trades": False,
        "select/majority_log_loss": False,
        "data/gaps": False,
    }.items(),
)
def test_directions(logged, lower):
    assert lower_is_better(logged) == lower


def test_one_direction_for_everybody():
    """A sweep minimises, a tracker keeps the least, and a monitor falls, for the same metrics."""
    from hft.learning.trainer import MONITORS
    from tests.study.small_study import make_sweep

    for m in ALL:
        logged = metric("select", m.name) + ("@maker_free" if m.by_schedule else "")
        wanted = {"lower": "min", "higher": "max", "neither": "last"}[m.better]
        assert best_of(logged) == wanted
        (direction,) = make_sweep(
            "tpe", objectives=(logged,), n_trials=1, storage="journal"
        ).directions()
        assert (direction == "minimize") == (m.better == "lower")
    assert "tune/log_loss" in MONITORS
    assert not [name for name in MONITORS if find(name).better == "neither"]


def test_what_differs_when_a_run_is_repeated():
    assert is_timing("train/examples_per_s/sd")
    assert is_timing("train/stages_s")
    assert not is_timing("train/loss")
    assert not is_timing("data/stages")


def test_money_is_comparable_across_labels():
    assert is_money(money_metric("select", "maker_free"))
    assert is_money("select/trades")
    assert not is_money("select/log_loss")
    assert not is_money("labels/hold")
