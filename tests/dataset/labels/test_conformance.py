"""What every kind of label promises, over every kind and its YAML."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_MS
from hft.dataset.labels import build_labels
from hft.market.bars import build_bars
from hft.schema import LABELS
from hft.spec import Room, parse
from tests.dataset.labels.hand import CONF, label_spec
from tests.random_market import random_ticks

KINDS = Room("hft.dataset.labels").names()
BARS_ON_OFFER = [{"kind": "tick", "size": 10}, {"kind": "time", "size": 600}]


@pytest.fixture(scope="module", params=[True, False], ids=["quotes", "trades only"])
def ticks(request):
    """Two days with one gap in the first."""
    made = random_ticks(seed=2, n_trades=4000, n_days=2, quotes=request.param)
    return dataclasses.replace(made, gaps=made.trades["ts_recv"].to_numpy()[1501:1502])


@pytest.fixture(scope="module", params=BARS_ON_OFFER, ids=lambda plain: plain["kind"])
def market(request, ticks):
    return ticks, build_bars(ticks, _bar_spec(request.param)), request.param


def _bar_spec(plain):
    return parse(Room("hft.market.bars").load(plain["kind"]), plain)


def spec_of(kind, **changes):
    """The shipped numbers cut to few bars: horizon 10, and a span of 20 where the kind has one."""
    spec = label_spec(kind)
    short = {"horizon": 10} | ({"span": 20} if "span" in type(spec).model_fields else {})
    return label_spec(kind, **short, **changes)


# How decisions are sampled and labels weighed, whatever the kind.
SAMPLED = [
    {},
    {"events": {"every": 3, "cusum": 0.0, "span": 1}, "weights": "uniqueness"},
    {"events": {"every": 1, "cusum": 1.5, "span": 20}, "weights": "return", "decay": 0.5},
]


def test_kinds_and_yaml_files_are_the_same():
    assert sorted(p.stem for p in (CONF / "labels").glob("*.yaml")) == KINDS


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_schema_and_nulls(self, kind, market):
        ticks, bars, _ = market
        spec = spec_of(kind)
        labels = build_labels(ticks, bars, spec)
        assert dict(labels.schema) == LABELS
        assert labels["bar"].equals(bars["bar"])
        known = labels["y"].is_not_null()
        assert 0 < known.sum() < len(known)
        for name in ("t_end", "ret_bps", "weight"):
            assert labels[name].is_not_null().equals(known)
        assert labels["y"].drop_nulls().is_in([0, 1, 2]).all()
        assert labels["ret_bps"].drop_nulls().is_finite().all()
        assert (labels["weight"].drop_nulls() > 0).all()

    def test_a_label_ends_after_its_entry_and_by_the_close_of_bar_t_plus_h(self, kind, market):
        ticks, bars, _ = market
        spec = spec_of(kind)
        both = build_labels(ticks, bars, spec).with_columns(
            ts=bars["ts"],
            expires=bars["ts"].shift(-spec.horizon),
            same=bars["segment"].shift(-spec.horizon),
        )
        ends = both.with_columns(same=both["same"] == bars["segment"])
        known = ends.filter(pl.col("y").is_not_null())
        assert (known["t_end"] >= known["ts"] + round(spec.latency_ms * NS_PER_MS)).all()
        assert (known["t_end"] <= known["expires"]).all()
        # The last `horizon` bars of each segment have none.
        assert known["same"].all()
        assert ends.filter(~pl.col("same").fill_null(False))["y"].is_null().all()

    def test_is_deterministic_and_leaves_its_input_alone(self, kind, market):
        ticks, bars, _ = market
        before = (ticks.trades.clone(), bars.clone())
        assert build_labels(ticks, bars, spec_of(kind)).equals(
            build_labels(ticks, bars, spec_of(kind))
        )
        assert ticks.trades.equals(before[0])
        assert bars.equals(before[1])

    @pytest.mark.parametrize("sampled", SAMPLED, ids=["every bar", "every third", "cusum"])
    @pytest.mark.parametrize("cut", [0.3, 0.62])
    def test_nothing_after_t_end_matters(self, kind, market, cut, sampled):
        """Labels that ended by a moment, and their weights, are bit for bit the same when all
        prices and quotes after it change and bars are rebuilt.
        """
        ticks, bars, plain = market
        spec = spec_of(kind, **sampled)
        moment = bars["ts"][int(cut * bars.height)]
        other = _perturbed_after(ticks, moment)
        labels = build_labels(ticks, bars, spec)
        rebuilt = build_bars(other, _bar_spec(plain))
        again = build_labels(other, rebuilt, spec)
        n_known = int((bars["ts"] <= moment).sum())
        np.testing.assert_array_equal(spec.offered(bars)[:n_known], spec.offered(rebuilt)[:n_known])
        ended = labels.filter(pl.col("t_end") <= moment)
        assert ended.height > (4 if sampled else 20)
        # A time bar may be known later than its last print before t_end: its row exists in both.
        assert ended.equals(again.filter(pl.col("bar").is_in(ended["bar"].implode())))
        rest = labels.join(again, on="bar").filter(pl.col("t_end") > moment)
        assert (rest["ret_bps"] != rest["ret_bps_right"]).any()

    @pytest.mark.parametrize("n", [40, 97, 250])
    def test_exits_use_nothing_later_than_their_bar(self, kind, market, n):
        _, bars, _ = market
        full, part = spec_of(kind).exits(bars), spec_of(kind).exits(bars[:n])
        np.testing.assert_array_equal(full.take_profit[:n], part.take_profit)
        np.testing.assert_array_equal(full.stop_loss[:n], part.stop_loss)

    def test_exits_are_fractions_or_unknown(self, kind, market):
        _, bars, _ = market
        exits = spec_of(kind).exits(bars)
        assert exits.horizon == 10
        for distance in (exits.take_profit, exits.stop_loss):
            assert distance.dtype == np.float64
            assert distance.shape == (bars.height,)
            assert np.all(np.isnan(distance) | (distance > 0))
        np.testing.assert_array_equal(np.isnan(exits.take_profit), np.isnan(exits.stop_loss))

    def test_no_bars_have_no_labels(self, kind, market):
        ticks, bars, _ = market
        assert build_labels(ticks, bars[:0], spec_of(kind)).height == 0
        assert build_labels(ticks, bars[:5], spec_of(kind))["y"].null_count() == 5

    def test_numbers_out_of_range_are_refused(self, kind, market):
        for wrong in ({"horizon": 0}, {"latency_ms": -1.0}, {"horizon": 2.5}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                label_spec(kind, **wrong)


def _perturbed_after(ticks, moment):
    rng = np.random.default_rng(9)

    def moved(frame, columns):
        factor = pl.Series(1 + rng.normal(0, 0.01, frame.height))
        later = pl.col("ts_recv") > moment
        return frame.with_columns(
            pl.when(later).then(pl.col(c) * factor).otherwise(c).alias(c) for c in columns
        )

    return dataclasses.replace(
        ticks, trades=moved(ticks.trades, ["price"]), quotes=moved(ticks.quotes, ["bid", "ask"])
    )
