"""Fees by hand, and the shipped ladders against the table of docs/definitions.md 3."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import Field

from hft.spec import PACKAGE, Spec, SpecError, parse
from hft.trading.fees import FeeSchedule, headline, reported

CONF = PACKAGE.parent / "conf"


class Config(Spec):
    fees: dict[str, FeeSchedule] = Field(min_length=1)


def shipped(choice: str = "all") -> dict[str, FeeSchedule]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(overrides=[f"+fees={choice}"])
    return parse(Config, OmegaConf.to_container(composed)).fees


def ledger(*legs: tuple[float, bool, bool]) -> pl.DataFrame:
    return pl.DataFrame(legs, schema=["gross_bps", "maker_entry", "maker_exit"], orient="row")


def test_each_leg_pays_its_own_fee():
    schedule = FeeSchedule(maker_bps=-0.5, taker_bps=5.0)
    trades = ledger(
        (20.0, False, False), (20.0, True, False), (20.0, False, True), (-3.0, True, True)
    )
    assert schedule.cost_bps(trades).tolist() == [10.0, 4.5, 4.5, -1.0]
    assert schedule.net_bps(trades).tolist() == [10.0, 15.5, 15.5, -2.0]


def test_no_trades_cost_nothing():
    empty = ledger((1.0, True, True)).clear()
    assert FeeSchedule(maker_bps=1.0, taker_bps=5.0).net_bps(empty).tolist() == []


def test_every_schedule_of_the_tables_is_shipped():
    fees = shipped()
    ladders = {
        "binance_usdm_vip": 10,
        "binance_spot_vip": 10,
        "bybit_perp_vip": 6,
        "okx_spot_vip": 8,
    }
    assert {p: sum(n.startswith(p) for n in fees) for p in ladders} == ladders
    others = {n for n in fees if not n.startswith(tuple(ladders))}
    assert others == {"bybit_perp_supreme", "okx_perp_regular", "maker_free", "retail_taker"}


@pytest.mark.parametrize(
    ("name", "maker", "taker"),
    [
        ("binance_usdm_vip0", 2.0, 5.0),
        ("binance_usdm_vip6", 0.6, 2.5),
        ("binance_usdm_vip9", 0.0, 1.7),
        ("binance_spot_vip3", 4.2, 6.0),
        ("bybit_perp_vip2", 1.6, 3.75),
        ("bybit_perp_supreme", 0.0, 3.0),
        ("okx_spot_vip1", 6.0, 8.0),
        ("okx_spot_vip6", -0.2, 3.0),
        ("okx_perp_regular", 2.0, 5.0),
        ("maker_free", 0.0, 0.0),
        ("retail_taker", 2.5, 2.5),
    ],
)
def test_rates(name, maker, taker):
    schedule = shipped()[name]
    assert (schedule.maker_bps, schedule.taker_bps) == (maker, taker)


def test_higher_tiers_never_pay_more():
    fees = shipped()
    for ladder, tiers in (
        ("binance_usdm", range(10)),
        ("binance_spot", range(10)),
        ("okx_spot", range(1, 9)),
    ):
        rates = [fees[f"{ladder}_vip{i}"] for i in tiers]
        assert all(
            a.taker_bps >= b.taker_bps and a.maker_bps >= b.maker_bps
            for a, b in itertools.pairwise(rates)
        )


def test_one_ladder_alone_and_a_rate_from_the_command_line():
    assert list(shipped("named")) == ["maker_free", "retail_taker"]
    assert len(shipped("[named,okx_perp]")) == 3


def test_a_negative_taker_fee_is_refused():
    with pytest.raises(
        SpecError, match=r"fees.mine.taker_bps: must be greater than or equal to 0, got -1"
    ):
        parse(Config, {"fees": {"mine": {"maker_bps": 1.0, "taker_bps": -1.0}}})


def test_one_way_is_the_mean_fee_of_a_leg():
    schedule = FeeSchedule(maker_bps=-0.5, taker_bps=5.0)
    trades = ledger((20.0, True, False), (20.0, False, False))
    assert schedule.one_way_bps(trades) == (4.5 + 10.0) / 2 / 2
    assert schedule.one_way_bps(ledger().cast({"gross_bps": pl.Float64})) == 5.0


def test_headline_shows_both_ends_of_each_ladder():
    tiers = {"free_all": 0.0, "ladder_dear": 5.0, "ladder_mid": 3.0, "ladder_cheap": 1.0}
    assert headline(tiers) == ["free_all", "ladder_dear", "ladder_cheap"]
    shown = headline({name: schedule.taker_bps for name, schedule in shipped().items()})
    named = {"binance_usdm_vip0", "binance_usdm_vip9", "bybit_perp_supreme"}
    assert {*named, "maker_free", "retail_taker"} <= set(shown)
    assert len(shown) == 11


def test_reports_show_the_strategys_own_schedule_first():
    fees = shipped()
    ends = headline({name: schedule.taker_bps for name, schedule in fees.items()})
    assert reported(fees, own="binance_usdm_vip3") == ["binance_usdm_vip3", *ends]
    first, *rest = reported(fees, own="binance_usdm_vip9")
    assert first == "binance_usdm_vip9"
    assert sorted([first, *rest]) == sorted(ends)
