"""Folds and seeds of one run, the locked period, and the choices of labels, from training to the
stitched score.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from hft.clock import to_iso
from hft.dataset.splits import make_periods
from hft.market.ticks import DataError
from hft.metrics import is_timing
from hft.report.scorecard import Scorecard
from hft.runs.jobs import read_data_keys
from hft.spec import SpecError, parse
from tests.smoke import change_ticks_from, figures, score_run, smoke_config, train_smoke, weights

META = (
    "labels=meta",
    "labels.horizon=10",
    "labels.span=50",
    "labels.primary.window=5",
    "labels.primary.threshold=0.1",
)
MONEY = "select/net_bps_day@binance_usdm_vip0"
ONE_EPOCH = ("trainer.epochs=1",)
CPCV = ("splits=cpcv", "splits.groups=4", *ONE_EPOCH)
WALK = ("splits=walk_forward", "splits.folds=2", *ONE_EPOCH)


def splits_of(run, root, *overrides):
    return make_periods(*read_data_keys(run).span, smoke_config(root, *overrides).splits)


def scored(run):
    return run.read_predictions(folder=run.backtest_folder("test"))


def scorecards(run):
    return json.loads((run.backtest_folder("test") / "scorecards.json").read_text())


def check_whole_card(run, root, cards, *overrides):
    """Every series is of the same period, the middle one by net return is the card."""
    stored = json.loads((run.backtest_folder("test") / "scorecard.json").read_text())
    spans = {(card["start"], card["end"]) for card in cards.values()}
    blocks = [
        block for split in splits_of(run, root, *overrides) for block in split.periods["test"]
    ]
    assert spans == {(min(b[0] for b in blocks), max(b[1] for b in blocks))}
    nets = {
        name: card["schedules"]["binance_usdm_vip0"]["net_bps_total"]
        for name, card in cards.items()
    }
    ranked = sorted(nets, key=nets.get)
    assert stored == cards[ranked[(len(ranked) - 1) // 2]]


def test_money_is_a_curve_every_so_many_epochs(tmp_path):
    run = train_smoke(
        tmp_path, "logger=csv", "money_every=2", "trainer.epochs=4", "trainer.patience=4"
    )
    rows = pl.read_csv(run.folder / "metrics.csv")
    assert rows.filter(pl.col(MONEY).is_not_null())["epoch"].to_list() == [1, 3]
    assert rows["select/trades"].null_count() == 2


def test_several_units_end_in_one_table(tmp_path, capsys):
    run = train_smoke(tmp_path, "seeds=2", *ONE_EPOCH)
    table = capsys.readouterr().out.partition("over folds and seeds")[2]
    for name in ("select/log_loss", MONEY):
        (row,) = [line.split() for line in table.splitlines() if line.split()[:1] == [name]]
        expected = [run.read_metrics()[key] for key in (name, f"{name}/sd", f"{name}/worst")]
        assert row[1:] == [f"{value:.4f}" for value in expected]


# Seeds


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds")
    run = train_smoke(root, "seeds=2", "seed=3")
    return root, run


def test_each_seed_is_the_run_it_would_be_alone(two_seeds):
    root, run = two_seeds
    for seed in (3, 4):
        alone = train_smoke(root, f"seed={seed}")
        metrics, predictions = run.read_unit(0, seed)
        same = {name: metrics[name] for name in metrics if not is_timing(name)}
        assert same == figures(alone)
        assert predictions.equals(alone.read_predictions())
        for name, value in weights(alone, seed=seed).items():
            assert np.array_equal(weights(run, seed=seed)[name], value), name


def test_metrics_are_mean_deviation_and_worst_over_seeds(two_seeds):
    _, run = two_seeds
    units = [run.read_unit(0, seed)[0] for seed in (3, 4)]
    metrics = run.read_metrics()
    for name, worst in (("select/log_loss", max), (MONEY, min), ("tune/mcc", min)):
        values = [unit[name] for unit in units]
        assert metrics[name] == pytest.approx(np.mean(values))
        assert metrics[f"{name}/sd"] == pytest.approx(np.std(values, ddof=1))
        assert metrics[f"{name}/worst"] == worst(values)


def test_predictions_hold_both_seeds(two_seeds):
    _, run = two_seeds
    frame = run.read_predictions()
    assert frame["seed"].unique().sort().to_list() == [3, 4]
    assert len(frame.filter(seed=3)) == len(frame.filter(seed=4)) > 0


def test_a_scoring_prints_and_keeps_the_spread_of_seeds(two_seeds, capsys):
    root, run = two_seeds
    card = score_run(root, run.id)
    printed = capsys.readouterr().out
    cards = scorecards(run)
    assert list(cards) == ["seed 3", "seed 4"]
    assert card.plain() in cards.values()
    check_whole_card(run, root, cards)
    assert "2 series at binance_usdm_vip0" in printed
    for row in ("seed 3", "seed 4", "mean", "standard deviation", "worst"):
        assert row in printed
    assert scored(run)["seed"].unique().sort().to_list() == [3, 4]


def test_one_series_has_no_spread(smoke):
    assert not (smoke.run.folder / "backtest" / "test" / "scorecards.json").exists()


# Folds


def test_walk_forward_joins_its_test_periods(tmp_path):
    run = train_smoke(tmp_path, *WALK)
    assert sorted(p.name for p in run.folder.glob("fold-*")) == ["fold-0", "fold-1"]
    units = [run.read_unit(fold, 0)[0] for fold in (0, 1)]
    assert run.read_metrics()[MONEY] == pytest.approx(np.mean([unit[MONEY] for unit in units]))
    assert f"{MONEY}/sd" not in run.read_metrics()
    score_run(tmp_path, run.id)
    frame = scored(run)
    assert frame["bar"].is_unique().all()
    assert frame["bar"].is_sorted()
    assert (frame["bar"].diff().drop_nulls() == 1).all()
    for split in splits_of(run, tmp_path, *WALK):
        start, end = split.hull("test")
        of_fold = frame.filter(fold=split.fold)["ts"]
        assert (start <= of_fold.min(), of_fold.max() < end, len(of_fold) > 100) == (
            True,
            True,
            True,
        )
    ledger = pl.read_parquet(run.backtest_folder("test") / "ledger.parquet")
    assert ledger["fold"].unique().sort().to_list() == [0, 1]
    assert (ledger["ts_entry"].diff().drop_nulls() > 0).all()
    assert (ledger["ts_entry"].to_numpy()[1:] >= ledger["ts_exit"].to_numpy()[:-1]).all()


def test_cpcv_assembles_paths_that_test_each_bar_once(tmp_path):
    run = train_smoke(tmp_path, *CPCV)
    splits = splits_of(run, tmp_path, *CPCV)
    assert len(splits) == len(list(run.folder.glob("fold-*"))) == 6
    score_run(tmp_path, run.id)
    cards, frame = scorecards(run), scored(run)
    assert list(cards) == [f"seed 0, path {path}" for path in range(3)]
    check_whole_card(run, tmp_path, cards, *CPCV)
    bars = [sorted(frame.filter(path=path)["bar"]) for path in range(3)]
    assert bars[0] == bars[1] == bars[2] == list(range(bars[0][0], bars[0][-1] + 1))
    for split in splits:
        for path, (start, end) in zip(split.paths, split.periods["test"], strict=True):
            of_path = frame.filter(path=path)
            inside = of_path.filter(pl.col("ts").is_between(start, end, closed="left"))
            assert inside["fold"].unique().to_list() == [split.fold]
            assert len(of_path.filter(fold=split.fold)) > 100


# The locked period

FINAL = ("splits.final=0.15", "splits.embargo=5")


def test_the_locked_period_is_unread_until_opened(tmp_path, monkeypatch, capsys):
    plain = train_smoke(tmp_path / "plain", *FINAL)
    (split,) = splits_of(plain, tmp_path, *FINAL)
    locked, end = split.hull("final")
    assert (split.hull("test")[1], end) == (locked, read_data_keys(plain).span[1])
    card = score_run(tmp_path / "plain", plain.id)
    opened = score_run(tmp_path / "plain", plain.id, "open_final=true", "name=final")
    assert (opened.start, opened.end) == (locked, end)
    assert "opening 1 of this run's final period" in opened.notes
    assert (len(plain.read_openings("test")), len(plain.read_openings("final"))) == (1, 1)
    again = score_run(tmp_path / "plain", plain.id, "open_final=true", "name=again")
    assert "opening 2 of this run's final period" in again.notes

    change_ticks_from(monkeypatch, locked)
    other = train_smoke(tmp_path / "other", *FINAL)
    assert figures(other) == figures(plain)
    assert all(
        np.array_equal(weights(other)[name], value) for name, value in weights(plain).items()
    )
    assert score_run(tmp_path / "other", other.id).plain() == card.plain()
    assert scored(other).equals(scored(plain))
    assert other.read_openings("final") == []
    # The change is one that counts.
    changed = score_run(tmp_path / "other", other.id, "open_final=true", "name=final")
    assert changed.gross_bps_trade != opened.gross_bps_trade


def test_the_locked_period_is_the_runs_own(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    with pytest.raises(
        SpecError, match=rf"open_final: run {run.id} has no locked period \(splits\.final was 0\)"
    ):
        score_run(tmp_path, run.id, "open_final=true")
    until = splits_of(run, tmp_path)[0].hull("select")[1]
    later = f"+data.start={to_iso(until)[:-1]}"
    with pytest.raises(
        SpecError, match="open_final: the locked period is one of the run's own data"
    ):
        score_run(tmp_path, run.id, "open_final=true", later)
    assert run.read_openings("final") == []


def test_the_locked_period_of_folds_is_scored_with_the_latest(tmp_path):
    run = train_smoke(tmp_path, *WALK, "splits.final=0.15")
    card = score_run(tmp_path, run.id, "open_final=true")
    assert scored(run)["fold"].unique().to_list() == [1]
    assert (card.start, card.end) == splits_of(run, tmp_path, *WALK, "splits.final=0.15")[1].hull(
        "final"
    )


# Labels, weights and the baseline


def test_meta_labels_trade_the_primarys_side_alone(tmp_path):
    run = train_smoke(tmp_path, *META, *ONE_EPOCH)
    frame = run.read_predictions()
    assert ((frame["p_buy"] == 0) ^ (frame["p_sell"] == 0)).all()
    assert (frame["p_hold"] > 0).all()
    metrics = run.read_metrics()
    # What the side alone tells is no skill: the majority knows it too.
    assert metrics["select/majority_log_loss"] < np.log(2) + 0.1
    assert metrics["select/log_loss"] - metrics["select/majority_log_loss"] == pytest.approx(
        metrics["select/log_loss_excess"]
    )
    assert parse(Scorecard, score_run(tmp_path, run.id).plain()).trades > 0


def test_events_thin_the_decisions(smoke, tmp_path):
    run = train_smoke(tmp_path, "labels.events.every=3", *ONE_EPOCH)
    thin, full = run.read_metrics(), smoke.run.read_metrics()
    assert thin["select/rows"] == pytest.approx(full["select/rows"] / 3, abs=1)
    assert (run.read_predictions()["bar"] % 3).n_unique() == 1
    for name in ("hold", "buy", "sell"):
        assert thin[f"labels/random_walk_{name}"] == pytest.approx(
            full[f"labels/random_walk_{name}"], abs=0.02
        )
    score_run(tmp_path, run.id)


def test_weights_and_decay_change_the_fit_alone(smoke, tmp_path):
    run = train_smoke(tmp_path, "labels.weights=uniqueness", "labels.decay=0.5")
    other, plain = run.read_metrics(), smoke.run.read_metrics()
    assert other["tune/log_loss"] != plain["tune/log_loss"]
    for name in ("labels/hold", "labels/n_eff", "tune/rows", "select/majority_log_loss"):
        assert other[name] == plain[name]


def test_the_baseline_stands_beside_the_model(tmp_path, capsys):
    run = train_smoke(tmp_path, "baseline=gbdt", "seeds=2", *ONE_EPOCH)
    metrics, printed = run.read_metrics(), capsys.readouterr().out
    for name in ("log_loss", "macro_f1", "mcc", "brier", "log_loss_excess"):
        assert np.isfinite(metrics[f"baseline/select/{name}"]), name
    assert "baseline" in printed
    assert metrics["baseline/select/log_loss/sd"] >= 0
    assert list(run.fold_folder(0, 1).glob("*.txt"))


def test_no_other_start_opens_what_is_locked(tmp_path):
    run = train_smoke(tmp_path, *FINAL, *ONE_EPOCH)
    (split,) = splits_of(run, tmp_path, *FINAL)
    (start, end), locked = split.hull("test"), split.hull("final")[0]
    for begin in (start, locked):
        with pytest.raises(
            DataError,
            match=rf"rows of the locked period of run {run.id} .*data\.end=.*open_final=true",
        ):
            score_run(tmp_path, run.id, f"+data.start={to_iso(begin)}")
    assert run.read_openings("final") == run.read_openings("test") == []
    card = score_run(tmp_path, run.id, f"+data.start={to_iso(start)}", f"+data.end={to_iso(end)}")
    assert "opening 1 of rows of this run's test period" in card.notes
    assert (len(run.read_openings("test")), run.read_openings("other")) == (1, [])
