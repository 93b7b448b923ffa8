"""What a scoring leaves behind, which rows it may read, and what it says of code that moved."""

from __future__ import annotations

import json

import polars as pl
import pytest

from hft.clock import to_iso
from hft.dataset.splits import make_periods
from hft.market.ticks import DataError
from hft.report.scorecard import Scorecard
from hft.runs.jobs import read_data_keys
from hft.schema import LEDGER
from hft.spec import parse
from tests.smoke import edit_about, score_run, smoke_config
from tests.tracking.wandb_files import read_offline

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_scorecard_covers_the_test_period(smoke):
    stored = json.loads((smoke.run.folder / "backtest" / "test" / "scorecard.json").read_text())
    assert parse(Scorecard, stored).plain() == smoke.card.plain()
    span = read_data_keys(smoke.run).span
    period = make_periods(*span, smoke_config(smoke.root).splits)[0].hull("test")
    assert (smoke.card.start, smoke.card.end) == period
    ledger = smoke.run.read_ledger("test")
    assert ledger.schema == LEDGER
    assert len(ledger) == smoke.card.trades > 0
    assert period[0] <= ledger["ts_entry"].min()
    assert ledger["ts_exit"].max() < period[1]
    assert (smoke.run.folder / "backtest" / "test" / "equity.png").read_bytes().startswith(PNG)


def test_wandb_holds_training_and_backtest_under_one_id(smoke):
    offline = read_offline(smoke.run.folder)
    assert offline.ids == [smoke.run.id, smoke.run.id]
    assert offline.exit_codes == [0, 0]
    assert offline.tags[:2] == ["smoke", "test"]
    assert {"experiment=smoke", "bars=tick", "model=se_tcn", "backtest=test"} <= set(offline.tags)
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
    for name in ("labels/hold", "select/log_loss", "select/net_bps_day@binance_usdm_vip0"):
        assert offline.summary[name] == pytest.approx(metrics[name])
    assert offline.summary["test/trades"] == smoke.card.trades
    scorecard = offline.tables["test/scorecard"]
    assert [row[0] for row in scorecard["data"]] == list(smoke.card.schedules)
    assert offline.images["test/equity"].startswith(PNG)
    assert offline.steps == sorted(set(offline.steps))


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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bars": ["0" * 64]}, "bars"),
        ({"labels": "0" * 64}, "labels"),
        ({"bars": ["0" * 64], "features": "0" * 64}, "bars and features"),
    ],
)
def test_what_is_made_otherwise_since_is_noted(smoke, tmp_path, changes, named):
    run = smoke.copy(tmp_path)
    edit_about(run, "data_keys", **changes)
    card = score_run(tmp_path, run.id, "logger=none")
    note = f"code moved: other data, code or libraries than in training make its {named}"
    assert [line for line in card.notes if "code moved" in line] == [note]
    assert card.gross_bps_trade == smoke.card.gross_bps_trade


def test_definitions_that_moved_are_noted_on_other_data_too(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    edit_about(run, "data_keys", bars=["0" * 64], features="0" * 64)
    card = score_run(tmp_path, run.id, "+data.seed=1", "logger=none", "name=other")
    note = "code moved: other data, code or libraries than in training make its features"
    assert [line for line in card.notes if "code moved" in line] == [note]


def test_a_run_whose_code_is_todays_has_no_such_note(smoke):
    assert not [line for line in smoke.card.notes if "moved" in line]


def test_the_forecasts_of_test_carry_the_true_class(smoke):
    frame = smoke.run.read_predictions(folder=smoke.run.backtest_folder("test"))
    assert set(frame["split"]) == {"test"}
    assert set(frame["y"].drop_nulls()) == {0, 1, 2}
    # Only the last bars, whose barriers lie beyond the period, have no class yet.
    horizon = smoke_config(smoke.root).labels.horizon
    unknown = frame.with_row_index().filter(pl.col("y").is_null())["index"]
    assert 0 < len(unknown) <= horizon
    assert unknown.min() >= len(frame) - horizon
