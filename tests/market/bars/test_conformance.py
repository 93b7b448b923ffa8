"""What every kind of bar promises, over every kind and its YAML."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hft.clock import NS_PER_DAY
from hft.market.bars import (
    BarError,
    build_bars,
    hourly_totals,
    join_bars,
    quote_bounds,
    trade_bounds,
)
from hft.market.ticks import cut_ticks
from hft.schema import BARS, check
from tests.market.bars.market import (
    CONF,
    KINDS,
    bar_spec,
    sided_ticks,
    small_spec,
    with_other_future,
)

TICKS = sided_ticks()


@pytest.fixture(scope="module", params=KINDS)
def built(request):
    spec = small_spec(request.param, TICKS)
    return spec, build_bars(TICKS, spec)


def same(left, right):
    """Bit for bit."""
    assert_frame_equal(left, right, check_exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ships_its_numbers(kind):
    assert (
        (CONF / f"{kind}.yaml")
        .read_text()
        .startswith("# yaml-language-server: $schema=../schema/bars.json\n")
    )
    assert bar_spec(kind).kind == kind
    fields = type(bar_spec(kind)).model_fields
    assert all(field.description for name, field in fields.items() if name != "kind")


def test_schema_and_order(built):
    spec, bars = built
    check(bars, BARS, where="bars")
    assert bars.height > 100, spec
    assert bars["bar"].to_list() == list(range(bars.height))
    assert bars["ts"].is_sorted()
    assert bars["ts_open"].is_sorted()
    assert (bars["ts_open"] <= bars["ts"]).all()
    low, high = pl.col("low"), pl.col("high")
    inside = bars.select(pl.all_horizontal(pl.col("open", "close", "vwap").is_between(low, high)))
    assert inside.to_series().all()


def test_bars_are_what_their_trades_add_up_to(built):
    _, bars = built
    bounds = trade_bounds(TICKS.trades["ts_recv"].to_numpy(), bars)
    rows = TICKS.trades.rows()
    for bar, first, stop in zip(bars.iter_rows(named=True), bounds[:-1], bounds[1:], strict=True):
        prices = [r[3] for r in rows[first:stop]]
        volume = turnover = buy = sell = 0.0
        for _, _, _, price, qty, side in rows[first:stop]:
            volume, turnover = volume + qty, turnover + price * qty
            buy, sell = buy + qty * (side > 0), sell + qty * (side < 0)
        found = [bar[c] for c in ("open", "high", "low", "close", "n_trades")]
        assert found == [prices[0], max(prices), min(prices), prices[-1], len(prices)]
        assert [bar[c] for c in ("volume", "turnover", "buy_volume", "sell_volume")] == [
            volume,
            turnover,
            buy,
            sell,
        ]
        assert bar["vwap"] == pytest.approx(turnover / volume, rel=1e-12)


def test_complete_days_keep_every_trade(built):
    spec, bars = built
    known = TICKS.trades.filter(pl.col("ts_recv") >= bars["ts_open"][0])
    assert (known.height == TICKS.trades.height) == (spec.hours_back == 0)
    assert bars["n_trades"].sum() == known.height
    for column, total in (("volume", known["qty"]), ("turnover", known["price"] * known["qty"])):
        assert bars[column].sum() == pytest.approx(total.sum(), rel=1e-9)
    for column, side in (("buy_volume", 1), ("sell_volume", -1)):
        assert bars[column].sum() == pytest.approx(known.filter(side=side)["qty"].sum(), rel=1e-9)


def test_midnight_closes_what_is_open(built):
    _, bars = built
    partial = bars.filter("partial")
    assert (partial["ts"] % NS_PER_DAY == 0).all()
    assert partial.height <= 3
    opened, closed = bars["ts_open"] // NS_PER_DAY, (bars["ts"] - 1) // NS_PER_DAY
    assert (opened == closed).all(), "a bar lies in one UTC day"


def test_open_remainder_of_an_incomplete_day_is_no_bar(built):
    spec, bars = built
    end = int(bars["ts"][-5]) - 1
    cut = build_bars(cut_ticks(TICKS, TICKS.start, end), spec)
    assert not cut["partial"][-1]
    assert (
        cut["n_trades"].sum()
        < TICKS.trades.filter(pl.col("ts_recv").is_between(bars["ts_open"][0], end)).height
    )


def test_is_deterministic(built):
    spec, bars = built
    same(build_bars(TICKS, spec), bars)


def test_truncation_changes_no_earlier_bar(built):
    spec, bars = built
    for ts in (
        np.random.default_rng(1).choice(TICKS.trades["ts_recv"].to_numpy()[700:], 12).tolist()
    ):
        cut = build_bars(cut_ticks(TICKS, TICKS.start, ts + 1), spec, allow_empty=True)
        same(cut, bars.filter(pl.col("ts") <= ts))


def test_another_future_changes_no_earlier_bar(built):
    spec, bars = built
    for ts in np.random.default_rng(2).choice(bars["ts"].to_numpy(), 12).tolist():
        other = build_bars(with_other_future(TICKS, ts), spec)
        same(other.filter(pl.col("ts") <= ts), bars.filter(pl.col("ts") <= ts))


def test_days_apart_join_to_the_same_bars(built):
    spec, bars = built
    days = [
        cut_ticks(TICKS, start, start + NS_PER_DAY)
        for start in range(TICKS.start, TICKS.end, NS_PER_DAY)
    ]
    frames, history = [], hourly_totals(days[0]).clear()
    for day in days:
        frames.append(build_bars(day, spec, history.tail(spec.hours_back), allow_empty=True))
        history = pl.concat([history, hourly_totals(day)])
    same(join_bars(frames, [False, False]), bars)


def test_a_gap_starts_a_segment(built):
    _, bars = built
    counted = [int((TICKS.gaps <= ts).sum()) for ts in bars["ts"]]
    assert bars["segment"].to_list() == counted
    assert bars["segment"].n_unique() == 3


def test_a_gap_between_days_starts_a_segment(built):
    spec, bars = built
    third = TICKS.start + 2 * NS_PER_DAY
    days = [cut_ticks(TICKS, TICKS.start, third), cut_ticks(TICKS, third, TICKS.end)]
    frames = [build_bars(days[0], spec), build_bars(days[1], spec, hourly_totals(days[0]))]
    first_event = min(int(days[1].trades["ts_recv"][0]), int(days[1].quotes["ts_recv"][0]))
    with_gap = dataclasses.replace(TICKS, gaps=np.append(TICKS.gaps, first_event))
    joined = join_bars(frames, [True])
    same(joined, build_bars(with_gap, spec))
    assert joined["segment"].max() == bars["segment"].max() + 1


def test_quotes_are_those_known_at_the_close(built):
    _, bars = built
    quotes = TICKS.quotes.rows(named=True)
    bounds = quote_bounds(TICKS.quotes["ts_recv"].to_numpy(), bars)
    for i, bar in enumerate(bars.iter_rows(named=True)):
        state = [bar[c] for c in ("bid", "ask", "bid_qty", "ask_qty")]
        last = bounds[i + 1] - 1
        if last >= 0 and quotes[last]["ts_recv"] >= bar["ts_open"] // NS_PER_DAY * NS_PER_DAY:
            assert state == [quotes[last][c] for c in ("bid", "ask", "bid_qty", "ask_qty")]
            assert quotes[last]["ts_recv"] < bar["ts"]
        else:
            assert state == [None] * 4
        if bounds[i + 1] < len(quotes):
            assert quotes[bounds[i + 1]]["ts_recv"] >= bar["ts"]


def test_without_quotes_the_rest_is_the_same(built):
    spec, bars = built
    blind = build_bars(dataclasses.replace(TICKS, quotes=TICKS.quotes.clear()), spec)
    states = ["bid", "ask", "bid_qty", "ask_qty"]
    same(blind.drop(states), bars.drop(states))
    assert blind.select(pl.col(states).is_null().all()).row(0) == (True,) * 4


def test_no_trades_is_one_clear_error(built):
    spec, _ = built
    silent = dataclasses.replace(TICKS, trades=TICKS.trades.clear())
    with pytest.raises(
        BarError, match=r"no trades from 2024-01-01T00:00:00Z to 2024-01-04T00:00:00Z.*data\.start"
    ):
        build_bars(silent, spec)
    assert build_bars(silent, spec, allow_empty=True).height == 0
