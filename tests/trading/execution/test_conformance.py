"""Every execution, every shipped YAML: schema, determinism, one position at a time, no
look-ahead.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import polars as pl
import pytest
import yaml
from omegaconf import OmegaConf

from hft.clock import NS_PER_MS
from hft.dataset.barriers import Exits
from hft.market.bars import build_bars
from hft.market.bars.tick import TickBars
from hft.market.ticks import Ticks
from hft.schema import LEDGER, check
from hft.spec import PACKAGE, Room, Spec, parse
from hft.trading.execution import REASONS, ExecutionSpec, simulate
from hft.trading.strategy.threshold import Threshold
from tests.random_market import random_ticks

ROOM = Room("hft.trading.execution")
CONF = PACKAGE.parent / "conf" / "execution"


class Config(Spec):
    execution: Annotated[ExecutionSpec, Room("hft.trading.execution")]


def shipped(kind: str, *, latency_ms: float) -> ExecutionSpec:
    node = yaml.safe_load((CONF / f"{kind}.yaml").read_text())
    plain = OmegaConf.to_container(
        OmegaConf.create({"latency_ms": latency_ms, "execution": node}), resolve=True
    )
    return parse(Config, {"execution": plain["execution"]}).execution


def market(*, quotes: bool = True, seed: int = 0) -> tuple[Ticks, pl.DataFrame, Exits, np.ndarray]:
    ticks = random_ticks(seed, n_trades=2000, quotes=quotes)
    bars = build_bars(ticks, TickBars(kind="tick", size=10))
    near = np.full(len(bars), 2e-4)
    sides = np.random.default_rng(seed).integers(-1, 2, len(bars)).astype(np.int8)
    return ticks, bars, Exits(take_profit=near, stop_loss=near, horizon=7), sides


@pytest.fixture(params=ROOM.names())
def execution(request) -> ExecutionSpec:
    return shipped(request.param, latency_ms=50.0)


@pytest.mark.parametrize("kind", ROOM.names())
def test_every_kind_ships_a_yaml_that_parses(kind):
    assert shipped(kind, latency_ms=25.0).latency_ms == 25.0


@pytest.mark.parametrize("quotes", [True, False])
def test_ledger_obeys_its_contract(execution, quotes):
    ticks, bars, exits, sides = market(quotes=quotes)
    until = ticks.end
    ledger = check(execution.simulate(sides, ticks, bars, exits, until=until), LEDGER, where="test")
    assert len(ledger) > 30
    assert set(ledger["reason"]) <= set(REASONS)
    decided = bars["ts"].gather(ledger["bar"])
    assert (ledger["ts_entry"] >= decided + 50 * NS_PER_MS).all()
    assert (ledger["ts_exit"] >= ledger["ts_entry"]).all()
    assert (decided[1:] > ledger["ts_exit"][:-1]).all()  # one position at a time
    assert (ledger["side"] == sides[ledger["bar"].to_numpy()]).all()
    np.testing.assert_allclose(ledger["qty"] * ledger["price_entry"], 1)
    gross = ledger["side"] * (ledger["price_exit"] / ledger["price_entry"] - 1) * 1e4
    np.testing.assert_allclose(ledger["gross_bps"], gross)
    null = ledger["markout_1s_bps"].is_null()
    assert null.all() if not quotes else not null.any()


@pytest.mark.parametrize("quotes", [True, False])
def test_same_input_same_ledger(execution, quotes):
    ticks, bars, exits, sides = market(quotes=quotes)
    runs = [execution.simulate(sides, ticks, bars, exits, until=ticks.end) for _ in range(2)]
    assert runs[0].equals(runs[1])


@pytest.mark.parametrize("quotes", [True, False])
def test_nothing_at_or_after_until_is_read(execution, quotes):
    """Whatever the market does from `until` on, the ledger stays the same to the bit."""
    ticks, bars, exits, sides = market(quotes=quotes)
    until = int(bars["ts"][120])
    before = execution.simulate(sides, ticks, bars, exits, until=until)
    late = pl.col("ts_recv") >= until
    moved = {
        "trades": ticks.trades.with_columns(
            pl.when(late).then(pl.col("price") * 3).otherwise("price").alias("price")
        ),
        "quotes": ticks.quotes.with_columns(
            pl.when(late).then(pl.col(c) * 3).otherwise(c).alias(c) for c in ("bid", "ask")
        ),
    }
    changed = Ticks(**{**vars(ticks), **moved})
    late_bars = bars.with_columns(
        pl.when(pl.col("ts") >= until).then(pl.col(c) * 3).otherwise(c).alias(c)
        for c in ("high", "low", "close")
    )
    assert execution.simulate(sides, changed, late_bars, exits, until=until).equals(before)
    assert (before["ts_exit"] < until).all()


@pytest.mark.parametrize("quotes", [True, False])
def test_a_longer_period_has_the_same_beginning(execution, quotes):
    ticks, bars, exits, sides = market(quotes=quotes)
    long = execution.simulate(sides, ticks, bars, exits, until=ticks.end)
    short = execution.simulate(sides, ticks, bars, exits, until=int(bars["ts"][120]))
    ended = short.filter(pl.col("reason") != "end").drop("^markout.*$")
    assert len(ended) > 10
    assert ended.equals(long.drop("^markout.*$").head(len(ended)))


def test_no_side_no_trade_and_no_distance_no_trade(execution):
    ticks, bars, exits, sides = market()
    assert not len(execution.simulate(np.zeros_like(sides), ticks, bars, exits, until=ticks.end))
    unknown = Exits(np.full(len(bars), np.nan), exits.stop_loss, exits.horizon)
    assert not len(execution.simulate(sides, ticks, bars, unknown, until=ticks.end))


def test_simulate_joins_strategy_and_execution(execution):
    ticks, bars, exits, sides = market()
    p_T3 = np.full((len(bars), 3), 0.2)
    p_T3[np.arange(len(bars)), np.where(sides > 0, 1, np.where(sides < 0, 2, 0))] = 0.6
    strategy = Threshold(kind="threshold", schedule="any", min_trades=5)
    ledger = simulate(
        p_T3,
        ticks,
        bars,
        exits,
        strategy=strategy,
        fitted={"theta": 0.5},
        execution=execution,
        until=ticks.end,
        fold=3,
    )
    direct = execution.simulate(sides, ticks, bars, exits, until=ticks.end)
    assert ledger.drop("fold").equals(direct.drop("fold"))
    assert (ledger["fold"] == 3).all()


def test_what_the_data_force_to_assume_is_said(execution):
    ticks, *_ = market(quotes=False)
    assert any("no quotes" in line for line in execution.assumptions(ticks))
