"""The whole path in process: what a run leaves behind, what it may not see, and that it can be had
again.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from hft.dataset.splits import make_periods
from hft.runs import money
from hft.runs.folder import RunError
from hft.runs.jobs import read_data_keys
from hft.runs.registry import list_runs
from hft.schema import PREDICTIONS
from hft.spec import UserError
from hft.system.cache import Cache
from tests.smoke import (
    QUIET,
    change_ticks_from,
    figures,
    folders,
    only_run,
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
        f"run={run} select/net_bps_day@binance_usdm_vip0={value:.6g}  "
        f"next: python backtest.py ckpt={run}"
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
    assert set(predictions["y"]) - {None} == {0, 1, 2}
    # Rows in the embargo are forecast, and not counted among those of select.
    of_select = predictions.filter(pl.col("y").is_not_null(), split="select")
    embargo = smoke_config(smoke.root).splits.embargo
    assert len(of_select) == smoke.run.read_metrics()["select/rows"] + embargo
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


# Quick looks


@pytest.mark.slow
def test_overfit_learns_one_batch_by_heart(shell, tmp_path):
    ended = shell("train.py", "experiment=smoke", "debug=overfit", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert only_run(tmp_path).read_metrics()["train/loss"] < 0.01
    assert "loss of train in the last of 100 epochs: 0.00" in ended.out


def test_the_profiler_leaves_its_table(shell, tmp_path):
    ended = shell("train.py", "experiment=smoke", "debug=profiler", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert "aten::" in (only_run(tmp_path).folder / "fold-0" / "seed-0" / "profile.txt").read_text()


@pytest.mark.parametrize(("debug", "epochs"), [("fdr", 1), ("limit", 2)])
def test_a_fast_run_goes_all_the_way(shell, tmp_path, debug, epochs):
    ended = shell("train.py", "experiment=smoke", f"debug={debug}", *QUIET, *folders(tmp_path))
    assert ended.status == 0, ended.err
    run = only_run(tmp_path)
    assert run.read_metrics()["train/epochs"] == epochs
    assert run.read_config()["tags"] == ["debug"]
    assert score_run(tmp_path, run.id).trades >= 0
