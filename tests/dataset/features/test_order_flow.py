"""OFI by hand and against a plain twin; the others against their closed forms."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_DAY
from hft.dataset.features import build_features, build_tick_columns
from hft.dataset.features._quotes import _flow
from hft.market.bars import build_bars
from hft.market.ticks import Ticks
from hft.schema import QUOTES, TRADES, book_columns, empty
from tests.dataset.features.market import book_ticks, build, feature, feature_specs
from tests.market.bars.market import bar_spec

MIDNIGHT = 19_723 * NS_PER_DAY
prices = st.one_of(st.integers(1, 4).map(float), st.just(float("nan")))
quotes = st.lists(
    st.tuples(prices, st.integers(0, 5).map(float), prices, st.integers(0, 5).map(float)),
    max_size=30,
)


def naive_ofi(before, after):
    """Four indicator terms, as the paper writes them."""
    (pb, pbq, pa, paq), (b, bq, a, aq) = before, after
    return (b >= pb) * bq - (b <= pb) * pbq - (a <= pa) * aq + (a >= pa) * paq


@settings(max_examples=60, deadline=None, derandomize=True)
@given(quotes, st.lists(st.integers(0, 30), max_size=6), st.integers(0, 10))
def test_flow_equals_its_plain_twin(rows, closes, begin):
    begin = min(begin, len(rows))
    stops = sorted(max(min(c, len(rows)), begin) for c in closes)
    starts = [begin, *stops[:-1]] if stops else []
    columns = np.array(rows, float).reshape(-1, 4).T
    flow, depth = _flow(
        *columns, np.array(starts, int), np.array(stops, int), np.full(len(stops), begin)
    )
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if stop == begin:
            assert np.isnan([flow[i], depth[i]]).all()
            continue
        assert flow[i] == sum(
            naive_ofi(rows[n - 1], rows[n]) for n in range(max(start, begin + 1), stop)
        )
        seen = rows[start:stop] or [rows[stop - 1]]
        assert depth[i] == pytest.approx(np.mean([(bq + aq) / 2 for _, bq, _, aq in seen]))


def market(quote_rows, *, closes):
    """One trade of one unit at each second of `closes`; quotes as (second, bid, bid_qty, ask,
    ask_qty).
    """
    ts = MIDNIGHT + np.array(closes) * 1_000_000_000
    columns = {
        "ts_recv": ts,
        "ts_exch": ts,
        "id": np.arange(len(ts)),
        "price": 100.0,
        "qty": 1.0,
        "side": 1,
    }
    second, *best = zip(*quote_rows, strict=True)
    ts_quote = MIDNIGHT + np.array(second) * 1_000_000_000
    state = dict(zip(("bid", "bid_qty", "ask", "ask_qty"), best, strict=True))
    quotes = pl.DataFrame({"ts_recv": ts_quote, "ts_exch": ts_quote, "seq": 0} | state)
    trades = pl.DataFrame(columns).cast(TRADES)
    no_gaps = np.empty(0, np.int64)
    end = int(ts[-1]) + 1
    return Ticks(trades, quotes.cast(QUOTES), empty(book_columns(0)), MIDNIGHT, end, no_gaps)


def features_of(ticks, **entries):
    specs = feature_specs(entries)
    bars = build_bars(ticks, bar_spec("tick", size=1))
    return build_features(bars, build_tick_columns(ticks, bars, specs), specs)


def test_ofi_by_hand():
    ticks = market(
        [
            (1, 99.0, 5.0, 101.0, 5.0),  # the day's first: no contribution
            (2, 99.0, 7.0, 101.0, 5.0),  # bid queue +2
            (3, 100.0, 1.0, 101.0, 4.0),  # new bid +1, ask queue -1: +2
            (
                4,
                100.0,
                1.0,
                102.0,
                6.0,
            ),  # at the trade's own time, so the next bar's: ask lifted, +4
            (5, 98.0, 3.0, 102.0, 6.0),  # bid gone -1
        ],
        closes=[4, 6, 7],
    )
    out = features_of(ticks, one={"kind": "ofi", "window": 1}, two={"kind": "ofi", "window": 2})
    depth = [(5 + 6 + 2.5) / 3, (3.5 + 4.5) / 2, 4.5]
    assert out["one"].to_list() == pytest.approx([4 / depth[0], 3 / depth[1], 0])
    assert out["two"].to_list()[1:] == pytest.approx(
        [7 / np.mean(depth[:2]), 3 / np.mean(depth[1:])]
    )
    assert out["two"][0] is None


def test_ofi_is_unknown_before_the_first_quote_and_zero_with_it():
    ticks = market([(2, 99.0, 5.0, 101.0, 5.0)], closes=[1, 3, 4])
    out = features_of(
        ticks, ofi={"kind": "ofi", "window": 1}, queue_imbalance={"kind": "queue_imbalance"}
    )
    assert out["ofi"].to_list() == [None, 0.0, 0.0]
    assert out["queue_imbalance"].to_list() == [None, 0.0, 0.0]


def test_ofi_is_scale_free():
    ticks = book_ticks()
    specs = {"ofi": feature(kind="ofi", window=5)}
    coins = ticks.quotes.with_columns(pl.col("bid_qty", "ask_qty") * 1000)
    larger = Ticks(ticks.trades, coins, ticks.book, ticks.start, ticks.end, ticks.gaps)
    expected, found = (build(t, specs)[1]["ofi"].drop_nulls().to_numpy() for t in (ticks, larger))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_best_quotes_by_hand():
    ticks = market([(1, 100.0, 3.0, 100.2, 1.0)], closes=[2])
    kinds = ("queue_imbalance", "weighted_mid_deviation", "relative_spread")
    out = features_of(ticks, **{kind: {"kind": kind} for kind in kinds})
    weighted_mid = 0.75 * 100.2 + 0.25 * 100.0
    assert out["queue_imbalance"][0] == 0.5
    assert out["weighted_mid_deviation"][0] == pytest.approx(
        (weighted_mid - 100.1) / 100.1 * 1e4, rel=1e-5
    )
    assert out["relative_spread"][0] == pytest.approx(0.2 / 100.1 * 1e4, rel=1e-5)


def test_empty_queues_are_unknown():
    ticks = market([(1, 100.0, 0.0, 100.2, 0.0)], closes=[2])
    assert features_of(ticks, it={"kind": "queue_imbalance"})["it"].to_list() == [None]
    assert features_of(ticks, it={"kind": "ofi", "window": 1})["it"].to_list() == [None]


def test_trade_imbalance_counts_unknown_sides_in_the_volume():
    bars = {
        "segment": [0, 0, 0, 1],
        "buy_volume": [1.0, 4.0, 0.0, 2.0],
        "sell_volume": [1.0, 0.0, 2.0, 0.0],
    }
    frame = pl.DataFrame(bars | {"volume": [4.0, 4.0, 2.0, 2.0]})
    assert feature(kind="trade_imbalance", window=1).column(frame).to_list() == [0, 1, -1, 1]
    assert feature(kind="trade_imbalance", window=2).column(frame).to_list() == [
        None,
        0.5,
        2 / 6,
        None,
    ]
