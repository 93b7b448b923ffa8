"""The null market behind every label share, against the closed form of docs/definitions.md 1."""

from __future__ import annotations

import math

import polars as pl
import pytest

from hft.clock import NS_PER_MS, NS_PER_S
from hft.dataset.labels import build_labels, class_shares, random_walk_shares
from hft.dataset.labels._random_walk import volatility, walk_like
from hft.market.bars import build_bars
from hft.spec import Room, parse
from tests.dataset.labels.hand import label_spec, market
from tests.random_market import random_ticks


def no_touch(k):
    """P(a continuous driftless walk stays inside +-k sigma sqrt(H) until H)."""
    terms = (
        (-1) ** n / (2 * n + 1) * math.exp(-((2 * n + 1) ** 2) * math.pi**2 / (8 * k * k))
        for n in range(200)
    )
    return 4 / math.pi * sum(terms)


def bars_like(*, trades_per_bar, sigma_bps=3.0, n_bars=101):
    """Bars whose returns alternate, of one second each."""
    close = [60_000.0 * math.exp(sigma_bps * 1e-4 * (i % 2)) for i in range(n_bars)]
    _, bars = market([[(1000 * i, c)] for i, c in enumerate(close)])
    return bars.with_columns(
        n_trades=pl.lit(trades_per_bar, pl.Int64), ts=pl.col("ts_open") + NS_PER_S
    )


def spec(**changes):
    return label_spec(
        "triple_barrier", **{"floor_bps": 0.0, "span": 1000, "latency_ms": 0.0} | changes
    )


@pytest.mark.parametrize("k", [0.7, 1.0, 1.5])
def test_hold_share_of_many_prints_is_that_of_the_continuous_walk(k):
    # Discrete prints see barriers 0.5826 print sigmas further away (Broadie, Glasserman and Kou
    # 1997).
    seen = no_touch(k + 0.5826 / math.sqrt(2000))
    shares = random_walk_shares(bars_like(trades_per_bar=1000), spec(width=k), seed=3)
    assert shares["hold"] == pytest.approx(seen, abs=0.03)
    assert shares["hold"] == pytest.approx(no_touch(k), abs=0.04)
    assert shares["buy"] == pytest.approx(shares["sell"], abs=0.06)


def test_the_figures_of_the_definitions():
    assert no_touch(1.0) == pytest.approx(0.37, abs=0.005)
    assert random_walk_shares(bars_like(trades_per_bar=10), spec(), seed=0)[
        "hold"
    ] == pytest.approx(0.40, abs=0.015)
    assert random_walk_shares(bars_like(trades_per_bar=1), spec(), seed=0)["hold"] == pytest.approx(
        0.44, abs=0.015
    )


def test_the_walk_has_the_bars_pace_and_volatility_and_the_seed_decides_it():
    bars = bars_like(trades_per_bar=10, sigma_bps=3.0)
    assert volatility(bars) == pytest.approx(3e-4)
    ticks, walk = walk_like(bars, horizon=50, seed=1)
    assert ticks.trades.height == walk["n_trades"].sum()
    assert walk["n_trades"].unique().to_list() == [10]
    assert volatility(walk) == pytest.approx(3e-4, rel=0.02)
    assert (walk["ts"].diff().drop_nulls() == NS_PER_S).all()
    assert random_walk_shares(bars, spec(), seed=1) == class_shares(
        build_labels(ticks, walk, spec())
    )
    assert random_walk_shares(bars, spec(), seed=1) != random_walk_shares(bars, spec(), seed=2)


def test_floor_and_threshold_weigh_against_the_volatility_of_the_data():
    calm, wild = (
        bars_like(trades_per_bar=10, sigma_bps=0.1),
        bars_like(trades_per_bar=10, sigma_bps=10.0),
    )
    assert random_walk_shares(calm, spec(floor_bps=10.0), seed=0)["hold"] == 1.0
    assert random_walk_shares(wild, spec(floor_bps=10.0), seed=0)["hold"] < 0.45
    fixed = label_spec("fixed_horizon", threshold_bps=10.0 * math.sqrt(50))
    # One sigma sqrt(H) beyond on both sides: 2 Phi(-1) = 0.317.
    assert random_walk_shares(wild, fixed, seed=0)["hold"] == pytest.approx(0.683, abs=0.03)


def test_volatility_reads_neighbours_of_one_segment_only():
    _, bars = market([[(i, 100.0 * math.exp(0.01 * i))] for i in range(6)], gaps_ms=[3])
    assert volatility(bars) == pytest.approx(0.01)
    jumped = bars.with_columns(
        close=pl.when(pl.col("bar") >= 3).then(pl.col("close") * 2).otherwise("close")
    )
    assert volatility(jumped) == pytest.approx(0.01)
    assert volatility(bars.filter(pl.col("bar").is_in([0, 4]))) == 0.0


def test_labels_of_a_random_market_are_those_of_the_walk_shaped_like_it():
    ticks = random_ticks(seed=5, n_trades=30_000, n_days=2)
    bars = build_bars(
        ticks, parse(Room("hft.market.bars").load("tick"), {"kind": "tick", "size": 10})
    )
    label = spec(horizon=20, latency_ms=float(NS_PER_S // NS_PER_MS))
    shares = class_shares(build_labels(ticks, bars, label))
    expected = random_walk_shares(bars, label, seed=0)
    assert shares == pytest.approx(expected, abs=0.06)


def test_shares_of_no_label_are_unknown():
    ticks, bars = market([[(0, 100.0)], [(1, 101.0)]])
    assert all(math.isnan(s) for s in class_shares(build_labels(ticks, bars, spec())).values())
