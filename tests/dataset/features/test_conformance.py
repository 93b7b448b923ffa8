"""What every feature promises, over every entry of every shipped set."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hft.clock import NS_PER_DAY
from hft.dataset.features import FeatureError, build_features, build_tick_columns, tick_plan
from hft.market.bars import build_bars
from hft.market.ticks import cut_ticks
from hft.schema import check, features_columns
from hft.spec import Room
from tests.dataset.features.market import (
    BARS,
    CONF,
    SETS,
    book_ticks,
    build,
    feature_specs,
    shipped,
)
from tests.market.bars.market import with_other_future

KINDS = Room("hft.dataset.features", families=True).specs()
ALL = {name: entry for s in SETS for name, entry in shipped(s).items()}
SPECS = feature_specs(ALL)
TICKS = book_ticks()


@pytest.fixture(scope="module")
def built():
    return build(TICKS, SPECS)


def same(left, right):
    """Bit for bit: nothing here depends on how much data follows."""
    assert_frame_equal(left, right, check_exact=True)


def test_every_kind_is_in_a_set():
    assert {entry["kind"] for entry in ALL.values()} == set(KINDS)


@pytest.mark.parametrize("name", SETS)
def test_every_set_points_at_its_schema(name):
    assert (
        (CONF / f"{name}.yaml")
        .read_text()
        .startswith("# yaml-language-server: $schema=../schema/features.json\n")
    )


def test_one_name_has_one_definition():
    for name in SETS:
        assert shipped(name).items() <= ALL.items(), (
            f"{name} defines a column otherwise than another set"
        )


def test_sets_are_what_they_say():
    needs = {
        name: {n for s in feature_specs(shipped(name)).values() for n in s.needs} for name in SETS
    }
    assert needs["trades_only"] == set()
    assert needs["micro"] == {"quotes"}
    assert "book" in needs["book"]
    assert len(shipped("micro")) >= 12


def test_hydra_composes_the_sets(tmp_path):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    (tmp_path / "features").symlink_to(CONF)
    (tmp_path / "main.yaml").write_text("defaults:\n  - features: [micro]\n  - _self_\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        micro = OmegaConf.to_container(compose("main"))["features"]
        both = OmegaConf.to_container(compose("main", ["features=[micro,book]"]))["features"]
    assert list(micro) == list(shipped("micro"))
    assert both == shipped("micro") | shipped("book")


def test_schema_and_nulls(built):
    bars, features = built
    check(features, features_columns(list(SPECS)), where="features")
    assert features["bar"].equals(bars["bar"])
    assert features.select(pl.exclude("bar").is_finite().all()).row(0) == (True,) * len(SPECS)


@pytest.mark.parametrize("name", ALL)
def test_null_exactly_while_warming_up_in_each_segment(built, name):
    bars, features = built
    place = bars.select(pl.int_range(pl.len()).over("segment")).to_series()
    assert bars["segment"].n_unique() == 2
    assert features[name].is_null().to_list() == (place < SPECS[name].warmup).to_list()


@pytest.mark.parametrize("name", ALL)
def test_is_not_constant(built, name):
    assert built[1][name].std() > 0


def test_is_deterministic_and_independent_of_the_set(built):
    same(build(TICKS, SPECS)[1], built[1])
    for name in ("ofi", "kalman_innovation", "mlofi_5"):
        alone = build(TICKS, {name: SPECS[name]})[1]
        same(alone, built[1].select("bar", name))


def test_truncation_changes_no_earlier_row(built):
    for ts in (
        np.random.default_rng(1).choice(TICKS.trades["ts_recv"].to_numpy()[200:], 12).tolist()
    ):
        bars, features = build(cut_ticks(TICKS, TICKS.start, ts + 1), SPECS)
        same(features, built[1].head(bars.height))


def test_another_future_changes_no_earlier_row(built):
    bars, features = built
    for ts in np.random.default_rng(2).choice(bars["ts"].to_numpy(), 12).tolist():
        known = (bars["ts"] <= ts).sum()
        same(build(with_other_future(TICKS, ts), SPECS)[1].head(known), features.head(known))


def test_tick_columns_depend_on_their_day_alone(built):
    bars, features = built
    same(build_features(bars, build_tick_columns(TICKS, bars, SPECS), SPECS), features)


def test_a_window_change_rebuilds_no_tick_columns():
    other = {
        name: entry | ({"window": 7} if "window" in entry else {}) for name, entry in ALL.items()
    }
    assert tick_plan(feature_specs(other)) == tick_plan(SPECS)
    deeper = feature_specs(ALL | {"depth_imbalance_5": {"kind": "depth_imbalance", "levels": 4}})
    assert tick_plan(deeper) != tick_plan(SPECS)
    assert tick_plan(feature_specs(shipped("trades_only"))) == []


def test_trades_only_needs_no_quotes(built):
    blind = dataclasses.replace(TICKS, quotes=TICKS.quotes.clear(), book=TICKS.book.clear())
    specs = feature_specs(shipped("trades_only"))
    same(build(blind, specs)[1], built[1].select("bar", *specs))


def test_missing_streams_name_the_columns_and_the_remedy():
    blind = dataclasses.replace(TICKS, quotes=TICKS.quotes.clear(), book=TICKS.book.clear())
    with pytest.raises(FeatureError) as error:
        build(blind, SPECS)
    quotes, book = str(error.value).splitlines()
    asking = ", ".join(name for name, spec in SPECS.items() if "quotes" in spec.needs)
    remedy = "choose features=[trades_only]"
    assert quotes == f"features: {asking} need quotes, which these data do not have; {remedy}"
    assert "depth_imbalance_5, mlofi_2, mlofi_3, mlofi_5 need book" in book


def test_a_level_that_the_book_lacks_is_refused():
    specs = feature_specs({"deep": {"kind": "depth_imbalance", "levels": 6}})
    with pytest.raises(FeatureError, match=r"deep needs book, .* fewer levels"):
        build(TICKS, specs)


def test_a_day_without_quotes_is_null_and_the_others_stand(built):
    bars, features = built
    second = TICKS.start + NS_PER_DAY
    half = dataclasses.replace(TICKS, quotes=TICKS.quotes.filter(pl.col("ts_recv") < second))
    known = (bars["ts_open"] < second).sum()
    partly = build(half, SPECS)[1]
    same(partly.head(known), features.head(known))
    assert partly["queue_imbalance"][known:].is_null().all()


def test_the_name_bar_is_taken():
    bars = build_bars(TICKS, BARS)
    specs = feature_specs({"bar": ALL["log_return"]})
    with pytest.raises(FeatureError, match="'bar' numbers the rows"):
        build_features(bars, build_tick_columns(TICKS, bars, specs), specs)
