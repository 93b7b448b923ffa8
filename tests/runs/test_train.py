"""The whole path in process: what a run leaves behind, what it may not see, and that it can be had
again.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from hft.clock import to_iso
from hft.dataset.splits import make_periods
from hft.market.ticks import DataError
from hft.report.scorecard import Scorecard
from hft.runs import money
from hft.runs.jobs import read_data_keys
from hft.runs.registry import RunError, list_runs
from hft.schema import LEDGER, PREDICTIONS
from hft.spec import UserError, parse
from hft.system.cache import Cache
from tests.smoke import (
    change_ticks_from,
    edit_about,
    figures,
    score_run,
    smoke_config,
    train_smoke,
    weights,
)
from tests.tracking.wandb_files import read_offline

PNG = b"\x89PNG\r\n\x1a\n"


# What a run leaves behind


def test_a_run_folder_holds_what_a_reader_needs(smoke):
    files = {
        str(p.relative_to(smoke.run.folder))
        for p in smoke.run.folder.rglob("*")
        if "wandb" not in p.parts
    }
    assert files >= {
        "config.json",
        "metrics.json",
        "predictions.parquet",
        "daily.parquet",
        "state.json",
        "test_openings.json",
        "fold-0/seed-0/weights.safetensors",
        "fold-0/seed-0/strategy.json",
        "backtest/test/scorecard.json",
        "backtest/test/ledger.parquet",
        "backtest/test/equity.png",
    }
    assert smoke.run.state == "done"


def test_the_last_line_is_one_to_paste(smoke):
    run, value = smoke.run.id, smoke.run.read_metrics()["select/net_bps_day@binance_usdm_vip0"]
    assert smoke.printed.splitlines()[-1] == (
        f"run={run} select/net_bps_day@binance_usdm_vip0={value:.6g}  next: python backtest.py ckpt={run}"
    )
    assert smoke.printed_by_backtest.splitlines()[-1].startswith(f"run={run} scorecard=")


def test_label_shares_stand_beside_a_random_walks(smoke):
    shares = smoke.run.read_metrics()
    assert "labels of train, in brackets a random walk's: hold" in smoke.printed.replace("\n", " ")
    for prefix in ("labels/", "labels/random_walk_"):
        assert sum(shares[prefix + name] for name in ("hold", "buy", "sell")) == pytest.approx(1)


def test_predictions_are_of_validation_alone(smoke):
    predictions = smoke.run.read_predictions()
    assert predictions.schema == PREDICTIONS
    assert predictions["split"].unique().sort().to_list() == ["select", "tune"]
    total = predictions.select(pl.sum_horizontal("p_hold", "p_buy", "p_sell")).to_series()
    assert np.allclose(total, 1)
    config = smoke_config(smoke.root)
    split = make_periods(*read_data_keys(smoke.run).span, config.splits)[0]
    for role in ("tune", "select"):
        ts = predictions.filter(split=role)["ts"]
        start, end = split.hull(role)
        assert start <= ts.min()
        assert ts.max() < end
    assert predictions["bar"].is_sorted()


def test_metrics_have_their_names(smoke):
    metrics = smoke.run.read_metrics()
    for split in ("tune", "select"):
        for name in (
            "log_loss",
            "macro_f1",
            "mcc",
            "majority_log_loss",
            "majority_macro_f1",
            "calibration_error",
            "rows",
        ):
            assert f"{split}/{name}" in metrics
    for schedule in smoke_config(smoke.root).fees:
        assert f"select/net_bps_day@{schedule}" in metrics
    assert metrics["select/trades"] > 0
    # Training reports validation only.
    assert not [name for name in metrics if name.startswith("test/")]


def test_more_fees_never_earn_more(smoke):
    metrics = smoke.run.read_metrics()
    net = [metrics[f"select/net_bps_day@binance_usdm_vip{tier}"] for tier in range(10)]
    assert net == sorted(net)


def test_the_scorecard_covers_the_test_period(smoke):
    stored = json.loads((smoke.run.folder / "backtest" / "test" / "scorecard.json").read_text())
    assert parse(Scorecard, stored).plain() == smoke.card.plain()
    span = read_data_keys(smoke.run).span
    period = make_periods(*span, smoke_config(smoke.root).splits)[0].hull("test")
    assert (smoke.card.start, smoke.card.end) == period
    ledger = pl.read_parquet(smoke.run.folder / "backtest" / "test" / "ledger.parquet")
    assert ledger.schema == LEDGER
    assert len(ledger) == smoke.card.trades > 0
    assert period[0] <= ledger["ts_entry"].min()
    assert ledger["ts_exit"].max() < period[1]
    assert (smoke.run.folder / "backtest" / "test" / "equity.png").read_bytes().startswith(PNG)


def test_wandb_holds_training_and_backtest_under_one_id(smoke):
    offline = read_offline(smoke.run.folder)
    assert offline.ids == [smoke.run.id, smoke.run.id]
    assert offline.exit_codes == [0, 0]
    assert offline.tags == ["smoke", "test"]
    stored = smoke.run.read_config()
    assert offline.config["bars"] == stored["bars"]
    assert offline.config["model"]["channels"] == 8
    assert offline.config["backtest_test"]["ckpt"] == smoke.run.id
    assert [epoch for epoch, _ in offline.curves["tune/log_loss"]] == [0, 1]
    assert {"train/loss", "tune/loss", "tune/macro_f1", "tune/mcc", "tune/precision_buy"} <= set(
        offline.curves
    )
    confusion = offline.tables["select/confusion"]
    assert confusion["columns"] == ["true", "predicted_hold", "predicted_buy", "predicted_sell"]
    metrics = smoke.run.read_metrics()
    assert sum(sum(row[1:]) for row in confusion["data"]) == metrics["select/rows"]
    for name in ("labels/hold", "labels/random_walk_hold", "select/net_bps_day@binance_usdm_vip0"):
        assert offline.summary[name] == pytest.approx(metrics[name])
    assert offline.summary["test/trades"] == smoke.card.trades
    scorecard = offline.tables["test/scorecard"]
    assert [row[0] for row in scorecard["data"]] == list(smoke.card.schedules)
    assert offline.images["test/equity"].startswith(PNG)
    assert offline.steps == sorted(set(offline.steps))


def test_wandb_holds_all_there_is_to_review(smoke):
    offline = read_offline(smoke.run.folder)
    about = smoke.run.read_about()
    assert offline.config["code"]["git"].keys() == {"commit", "dirty"}
    assert offline.config["code"]["versions"] == about["versions"]
    curves = {
        "train/lr",
        "train/grad_norm",
        "train/examples_per_s",
        "tune/brier",
        "tune/pr_auc_buy",
    }
    assert curves <= set(offline.curves)
    figures = ("confusion_matrix", "pr_curves", "reliability", "coverage", "gates")
    for name in (*(f"select/{figure}" for figure in figures), "tune/importance_bars"):
        assert offline.images[name].startswith(PNG), name
    assert {"select/predictions", "tune/importance"} <= set(offline.tables)
    assert offline.summary["data/order_events"] > 0
    ((name, artifact),) = [
        (n, a) for n, a in offline.artifacts.items() if a["type"] == "model"
    ]  # W&B keeps tables so
    assert name == f"{smoke.run.id}-fold-0-seed-0-weights"
    assert artifact["metadata"] == {"fold": 0, "seed": 0} | about["data_keys"]
    (stored,) = artifact["files"].values()
    assert stored.read_bytes() == (smoke.run.fold_folder(0, 0) / "weights.safetensors").read_bytes()


# What a run may not see


def test_training_never_reads_the_test_period(smoke, tmp_path, monkeypatch):
    plain = train_smoke(tmp_path / "plain")
    span = read_data_keys(plain).span
    until = make_periods(*span, smoke_config(tmp_path).splits)[0].hull("select")[1]
    change_ticks_from(monkeypatch, until)
    other = train_smoke(tmp_path / "other")
    assert read_data_keys(other).span == span
    assert figures(other) == figures(plain)
    assert other.read_predictions().equals(plain.read_predictions())
    assert other.read_strategy(0, 0) == plain.read_strategy(0, 0)
    for name, value in weights(plain).items():
        assert np.array_equal(weights(other)[name], value), name
    # The change is one that counts: the same weights score otherwise.
    card = score_run(tmp_path / "other", other.id)
    assert card.gross_bps_trade != smoke.card.gross_bps_trade


def test_a_change_before_the_test_period_is_seen(tmp_path, monkeypatch):
    plain = train_smoke(tmp_path / "plain")
    start, end = make_periods(*read_data_keys(plain).span, smoke_config(tmp_path).splits)[0].hull(
        "select"
    )
    change_ticks_from(monkeypatch, (start + end) // 2)
    assert figures(train_smoke(tmp_path / "other")) != figures(plain)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+data.end=2024-01-01T00:30"],
        ["+data.start=2024-01-01T00:33"],
        ["+data.alpha=0"],
        ["data=synthetic", "data.start=2024-01-01", "data.end=2024-01-01T00:10"],
    ],
)
def test_rows_that_a_run_was_trained_on_are_not_scored(smoke, tmp_path, overrides):
    run = smoke.copy(tmp_path)
    with pytest.raises(
        DataError, match=r"holds rows that run .* was trained on .*; set data\.start="
    ) as error:
        score_run(tmp_path, run.id, *overrides, "logger=none", "name=again")
    assert run.id in str(error.value)
    assert len(run.read_openings("test")) == 1
    assert not (run.folder / "backtest" / "again").exists()


def test_data_after_select_and_another_market_may_be_scored(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    until = make_periods(*read_data_keys(run).span, smoke_config(tmp_path).splits)[0].hull(
        "select"
    )[1]
    later = score_run(
        tmp_path, run.id, f"+data.start={to_iso(until)[:-1]}", "logger=none", "name=later"
    )
    assert later.start == until
    assert "opening 2 of rows of this run's test period" in later.notes
    other = score_run(tmp_path, run.id, "+data.seed=1", "logger=none", "name=other")
    assert other.trades != smoke.card.trades
    assert "opening 1 of other data than the run's own test period" in other.notes
    assert (len(run.read_openings("test")), len(run.read_openings("other"))) == (2, 1)


def test_openings_of_the_test_period_are_counted(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    card = score_run(tmp_path, run.id, "logger=none", "+execution.latency_ms=500", "name=slow")
    assert "opening 2 of this run's test period" in card.notes
    assert "opening 1 of this run's test period" in smoke.card.notes
    first, second = run.read_openings("test")
    assert first["config_sha256"] != second["config_sha256"]
    assert (run.folder / "backtest" / "slow" / "scorecard.json").is_file()


def test_a_scoring_again_gives_the_same(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    card = score_run(tmp_path, run.id, "logger=none")
    assert card.plain() | {"notes": None} == smoke.card.plain() | {"notes": None}


def test_data_that_lack_the_test_period_are_named(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    start, end = read_data_keys(run).span
    edit_about(run, "data_keys", span=[start, 2 * end - start])
    with pytest.raises(
        DataError, match=rf"does not hold the test period of run {run.id} .*; bring its files back"
    ):
        score_run(tmp_path, run.id, "logger=none")


def test_a_market_that_changed_since_is_noted(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    edit_about(run, "data_keys", bars=["0" * 64])
    card = score_run(tmp_path, run.id, "logger=none")
    assert "the data, or the code that makes bars of them, changed since training" in card.notes


# That it can be had again


def test_a_seed_is_a_run(tmp_path):
    first, second = (train_smoke(tmp_path, "seed=3") for _ in range(2))
    assert first.id != second.id
    assert figures(first) == figures(second)
    stored = [
        load_file(run.folder / "fold-0" / "seed-3" / "weights.safetensors")
        for run in (first, second)
    ]
    assert all(np.array_equal(value, stored[1][name]) for name, value in stored[0].items())
    assert first.read_predictions().equals(second.read_predictions())


def test_another_seed_is_another_run(smoke, tmp_path):
    other = train_smoke(tmp_path, "seed=3")
    assert figures(other)["tune/log_loss"] != figures(smoke.run)["tune/log_loss"]
    assert (
        not other.read_predictions().drop("seed").equals(smoke.run.read_predictions().drop("seed"))
    )


@pytest.fixture
def written(monkeypatch):
    """Stages of which an entry was built, in order."""
    stages = []
    write = Cache._write

    def counted(cache, folder, *arguments):
        stages.append(folder.parent.name)
        return write(cache, folder, *arguments)

    monkeypatch.setattr(Cache, "_write", counted)
    return stages


def test_a_second_run_builds_nothing_anew(tmp_path, written):
    train_smoke(tmp_path)
    assert sorted(written) == ["bars", "columns", "features", "labels", "ticks"]
    written.clear()
    train_smoke(tmp_path, "model.channels=4", "trainer.epochs=1", "seed=1")
    assert written == []


def test_another_barrier_width_rebuilds_labels_only(tmp_path, written):
    train_smoke(tmp_path)
    written.clear()
    train_smoke(tmp_path, "labels.width=0.5")
    assert written == ["labels"]


def test_another_bar_reads_the_ticks_once(tmp_path, written):
    train_smoke(tmp_path)
    written.clear()
    train_smoke(tmp_path, "bars.size=12")
    assert sorted(written) == ["bars", "columns", "features", "labels"]


# What fails


def test_a_run_that_fails_says_so(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("no")

    monkeypatch.setattr(money, "fit_strategy", fail)
    with pytest.raises(UserError):
        train_smoke(tmp_path)
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "failed"
    assert not (run.folder / "metrics.json").exists()
    with pytest.raises(RunError, match="is failed, not done"):
        score_run(tmp_path, "latest")


def test_class_metrics_may_be_the_objective(tmp_path):
    run = train_smoke(tmp_path, "objective=select/log_loss")
    assert run.read_metrics()["select/log_loss"] > 0


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_other_loggers_take_the_same(tmp_path, logger):
    run = train_smoke(tmp_path, f"logger={logger}")
    score_run(tmp_path, run.id)
    assert (run.folder / "metrics.csv").exists() is (logger == "csv")
    assert (run.folder / "figures" / "test-equity.png").exists() is (logger == "csv")
    assert not (run.folder / "wandb").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["features=trades_only"],
        [
            "features=[micro,book]",
            "model=linear",
            "~model.channels",
            "~model.levels",
            "~model.se_window",
        ],
        ["labels=fixed_horizon", "labels.horizon=10", "~labels.span", "loss=cross_entropy"],
        ["bars=time", "bars.size=2"],
        ["transforms=[]"],
    ],
)
def test_other_choices_take_the_whole_path(tmp_path, overrides):
    run = train_smoke(tmp_path, *overrides)
    assert score_run(tmp_path, run.id).trades >= 0
