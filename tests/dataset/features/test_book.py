"""Depth imbalance by hand, and the multilevel OFI against the OFI of the best quotes."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_DAY
from hft.dataset.features import build_tick_columns
from hft.market.bars import build_bars
from hft.schema import book_columns
from hft.spec import SpecError
from tests.dataset.features.market import BARS, N_LEVELS, book_ticks, build, feature

TICKS = book_ticks(n_trades=400)


def test_depth_imbalance_sums_the_levels_known_at_the_close():
    bars, features = build(TICKS, {"it": feature(kind="depth_imbalance", levels=3)})
    for bar, found in zip(bars.iter_rows(named=True), features["it"], strict=True):
        midnight = bar["ts_open"] // NS_PER_DAY * NS_PER_DAY
        known = TICKS.book.filter((pl.col("ts_recv") < bar["ts"]) & (pl.col("ts_recv") >= midnight))
        last = known.row(-1, named=True)
        bid, ask = (sum(last[f"{side}_qty_{k}"] for k in range(3)) for side in ("bid", "ask"))
        assert found == pytest.approx((bid - ask) / (bid + ask), rel=1e-6)


def test_levels_that_are_missing_hold_nothing():
    thin = TICKS.book.with_columns(
        pl.lit(None, pl.Float64).alias(c) for c in ("bid_2", "bid_qty_2")
    )
    ticks = dataclasses.replace(TICKS, book=thin)
    last = thin.filter(pl.col("ts_recv") < build_bars(ticks, BARS)["ts"][-1]).row(-1, named=True)
    bid, ask = last["bid_qty_0"] + last["bid_qty_1"], sum(last[f"ask_qty_{k}"] for k in range(3))
    found = build(ticks, {"it": feature(kind="depth_imbalance", levels=3)})[1]["it"][-1]
    assert found == pytest.approx((bid - ask) / (bid + ask), rel=1e-6)


def test_first_level_of_the_book_gives_the_ofi_of_the_quotes():
    best = TICKS.quotes.select(
        "ts_recv", "ts_exch", "seq", **{f"{c}_0": c for c in ("bid", "bid_qty", "ask", "ask_qty")}
    )
    ticks = dataclasses.replace(TICKS, book=best.select(list(book_columns(1))))
    specs = {
        "ofi": feature(kind="ofi", window=4),
        "mlofi": feature(kind="multilevel_ofi", levels=[1], window=4),
    }
    features = build(ticks, specs)[1]
    assert features["ofi"].equals(features["mlofi"])


def test_several_levels_weigh_equally():
    specs = {"it": feature(kind="multilevel_ofi", levels=[1, 3], window=2)}
    bars = build_bars(TICKS, BARS)
    columns = build_tick_columns(TICKS, bars, specs)
    flow = (columns["ofi_level_1"] + columns["ofi_level_3"]).to_numpy()
    depth = (columns["ofi_depth_level_1"] + columns["ofi_depth_level_3"]).to_numpy()
    found = specs["it"].column(bars.hstack(columns.drop("bar"))).to_numpy()
    expected = (flow[1:] + flow[:-1]) / ((depth[1:] + depth[:-1]) / 2)
    same_segment = np.diff(bars["segment"].to_numpy()) == 0
    np.testing.assert_allclose(
        found[1:], np.where(same_segment, expected, np.nan), rtol=1e-9, atol=1e-12
    )


def test_shared_levels_are_one_column():
    specs = {
        "one": feature(kind="multilevel_ofi", levels=[1], window=2),
        "all": feature(kind="multilevel_ofi", levels=list(range(1, N_LEVELS + 1)), window=9),
    }
    columns = build_tick_columns(TICKS, build_bars(TICKS, BARS), specs)
    assert len(columns.columns) == 1 + 2 * N_LEVELS


@pytest.mark.parametrize("levels", [[], [0]])
def test_levels_count_from_one(levels):
    with pytest.raises(SpecError, match=r"features\.it\.levels"):
        feature(kind="multilevel_ofi", levels=levels, window=2)
