"""What a tracker has of a run: few numbers, all of them to sort by, and the ladder as one table."""

from __future__ import annotations

import pytest

from hft.clock import NS_PER_DAY
from hft.metrics import METRICS, SHOWN, drawdown_metric, find, money_metric
from hft.report.scorecard import score
from hft.report.summary import fee_table, show_card, show_metrics, summary_of
from hft.tracking.tracker import Tracker
from hft.trading.fees import reported
from tests.report.test_scorecard import START, ledger, noisy
from tests.tracking.wandb_files import read_offline
from tests.trading.fees.test_fees import shipped

OWN = "binance_usdm_vip3"  # at no end of its ladder
NET = money_metric("select", OWN)
MANY = 60  # of the 914 that two folds and two seeds came to before


class Kept(Tracker):
    """Keeps what it is given."""

    keeps = True

    def __init__(self):
        self.values, self.tables, self.figures = {}, {}, {}

    def summary(self, values):
        self.values |= values

    def table(self, name, frame):
        self.tables[name] = frame

    def figure(self, name, figure):
        self.figures[name] = figure


def metrics_of(smoke, *, seeds: int = 2) -> dict[str, float | None]:
    """The smoke run's, paid at every shipped schedule, with spreads as of several seeds."""
    found = dict(smoke.run.read_metrics())
    if seeds > 1:
        found |= {f"{name}/{over}": 0.5 for name in list(found) for over in ("sd", "worst")}
    return found


def test_what_is_shown_is_in_the_registry():
    assert set(METRICS) >= SHOWN
    assert not [name for name in SHOWN if not (METRICS[name].results or METRICS[name].curves)]


def test_a_summary_is_short_and_sorts(smoke):
    metrics = metrics_of(smoke)
    found = summary_of(metrics, objective=NET, fees=shipped(), schedule=OWN)
    assert 30 < len(found) < MANY < len(metrics) / 5
    assert all(isinstance(value, int | float) for value in found.values())
    for schedule in reported(shipped(), own=OWN):
        assert found[money_metric("select", schedule)] == metrics[money_metric("select", schedule)]
    assert money_metric("select", "binance_usdm_vip5") not in found
    assert [name for name in found if "max_drawdown" in name] == [drawdown_metric("select", OWN)]
    spread = {name.rpartition("/")[0] for name in found if name.endswith("/sd")}
    assert spread == {NET, "select/log_loss", "select/mcc"}


def test_the_objective_is_shown_whatever_it_is(smoke):
    found = summary_of(
        metrics_of(smoke), objective="labels/unknowable", fees=shipped(), schedule=OWN
    )
    assert found["labels/unknowable"] == smoke.run.read_metrics()["labels/unknowable"]
    assert find("labels/unknowable").name not in SHOWN


def test_what_the_data_could_not_carry_is_left_out(smoke):
    metrics = metrics_of(smoke) | {"select/log_loss_excess": None}
    found = summary_of(metrics, objective=NET, fees=shipped(), schedule=OWN)
    assert "select/log_loss_excess" not in found
    assert None not in found.values()


def test_the_ladder_is_one_table(smoke):
    fees, metrics = shipped(), metrics_of(smoke, seeds=1)
    kept = Kept()
    show_metrics(kept, metrics, objective=NET, fees=fees, schedule=OWN)
    table = kept.tables["select/fees"]
    assert table["schedule"].to_list() == list(fees)
    assert table["net_bps_day"].to_list() == [metrics[money_metric("select", s)] for s in fees]
    assert table.columns == [
        "schedule", "maker_bps", "taker_bps", "net_bps_day", "max_drawdown_bps",
    ]  # fmt: skip
    several = fee_table(metrics_of(smoke), fees)
    assert {"net_bps_day/sd", "net_bps_day/worst"} <= set(several.columns)
    assert kept.values == summary_of(metrics, objective=NET, fees=fees, schedule=OWN)


def test_a_sharpe_ratio_is_logged():
    fees, end = shipped(), START + 10 * NS_PER_DAY
    card = score(ledger(noisy(1.0)), fees, START, end)
    kept, drawn = Kept(), object()
    show_card(kept, card, name="exam", fees=fees, schedule=OWN, equity=drawn)
    for schedule in reported(fees, own=OWN):
        row = card.schedules[schedule]
        assert kept.values[money_metric("exam", schedule)] == row.net_bps_day
        assert kept.values[f"exam/sharpe@{schedule}"] == row.sharpe
    assert kept.values["exam/verdict"] == card.verdict
    assert kept.values["exam/trades"] == 400
    assert kept.values[f"exam/max_drawdown_bps@{OWN}"] == card.schedules[OWN].max_drawdown_bps
    assert len(kept.tables["exam/scorecard"]) == len(fees)
    assert kept.figures == {"exam/equity": drawn}
    short = score(ledger([1.0] * 3), fees, START, START + NS_PER_DAY)
    kept = Kept()
    show_card(kept, short, name="exam", fees=fees, schedule=OWN, equity=drawn)
    assert not [name for name in kept.values if "sharpe" in name or "break_even_low" in name]
    assert kept.values["exam/break_even_bps"] == pytest.approx(0.5)


def test_a_run_and_its_backtest_in_wandb(smoke):
    run = read_offline(smoke.run.folder)
    # What W&B keeps of an image or a table stands below its name, after a dot.
    numbers = {n: v for n, v in run.summary.items() if isinstance(v, int | float) and "." not in n}
    trained = {name for name in numbers if not name.startswith(("test/", "data/"))}
    assert len(trained) < MANY
    assert len(run.tables["select/fees"]["data"]) == len(shipped())
    assert numbers["select/log_loss"] == smoke.run.read_metrics()["select/log_loss"]
    assert numbers["test/trades"] == smoke.card.trades
    net = smoke.card.schedules["maker_free"].net_bps_day
    assert numbers["test/net_bps_day@maker_free"] == net
