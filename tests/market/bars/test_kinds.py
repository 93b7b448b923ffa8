"""What sets each kind apart, on trades small enough to check by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from hft.market.bars import (
    BarError,
    build_bars,
    hourly_totals,
    join_bars,
    quote_bounds,
    require_bars,
    trade_bounds,
)
from hft.market.ticks import Ticks, cut_ticks
from hft.schema import BARS, QUOTES, TRADES, book_columns, empty
from hft.spec import SpecError
from tests.market.bars.market import bar_spec
from tests.random_market import random_ticks

MIDNIGHT = 1_704_067_200 * NS_PER_S


def trades_at(seconds, *, price=100.0, qty=1.0, end=NS_PER_DAY):
    """Buyers' trades so many seconds after midnight."""
    ts = MIDNIGHT + (np.array(seconds) * NS_PER_S).astype(np.int64)
    columns = {
        "ts_recv": ts,
        "ts_exch": ts,
        "id": np.arange(len(ts)),
        "price": price,
        "qty": qty,
        "side": 1,
    }
    trades = pl.DataFrame(columns).cast(TRADES)
    no_gaps = np.empty(0, np.int64)
    return Ticks(trades, empty(QUOTES), empty(book_columns(0)), MIDNIGHT, MIDNIGHT + end, no_gaps)


def seconds(bars, column):
    return ((bars[column] - MIDNIGHT) // NS_PER_S).to_list()


def test_time_bars_end_with_their_interval_and_skip_empty_ones():
    bars = build_bars(trades_at([0, 9.999, 10, 35, 36]), bar_spec("time", size=10))
    assert seconds(bars, "ts_open") == [0, 10, 30]
    assert seconds(bars, "ts") == [10, 20, 40]
    assert bars["n_trades"].to_list() == [2, 1, 2]
    assert not bars["partial"].any()


def test_time_bars_of_an_uneven_size_are_cut_by_midnight():
    bars = build_bars(trades_at([10, 86_399]), bar_spec("time", size=7000))
    assert seconds(bars, "ts") == [7000, 86_400]
    assert bars["partial"].to_list() == [False, True]


def test_time_bar_whose_interval_has_not_ended_is_no_bar():
    ticks = trades_at([1, 12], end=20 * NS_PER_S - 1)
    assert seconds(build_bars(ticks, bar_spec("time", size=10)), "ts") == [10]
    whole = trades_at([1, 12], end=20 * NS_PER_S)
    assert seconds(build_bars(whole, bar_spec("time", size=10)), "ts") == [10, 20]


def test_tick_bars_count_and_split_tied_trades():
    ticks = trades_at([1, 2, 2, 2, 3], price=[1.0, 2.0, 3.0, 4.0, 5.0])
    bars = build_bars(ticks, bar_spec("tick", size=2))
    assert bars["close"].to_list() == [2.0, 4.0, 5.0]
    assert bars["partial"].to_list() == [False, False, True]
    assert seconds(bars, "ts") == [2, 2, 86_400]
    assert trade_bounds(ticks.trades["ts_recv"].to_numpy(), bars).tolist() == [0, 2, 4, 5]


def test_volume_bars_drop_the_excess():
    ticks = trades_at(range(6), qty=[1.0, 5.0, 1.0, 1.0, 1.0, 1.0])
    bars = build_bars(ticks, bar_spec("volume", size=3.0))
    assert bars["volume"].to_list() == [6.0, 3.0, 1.0]


def test_dollar_bars_close_on_turnover():
    ticks = trades_at(range(5), price=[10.0, 20.0, 30.0, 40.0, 50.0], qty=2.0)
    bars = build_bars(ticks, bar_spec("dollar", size=60.0))
    assert bars["turnover"].to_list() == [60.0, 60.0, 80.0, 100.0]
    assert bars["vwap"].to_list() == [15.0, 30.0, 40.0, 50.0]


@pytest.mark.parametrize("kind", ["volume_adaptive", "dollar_adaptive"])
def test_adaptive_threshold_is_the_mean_of_the_hours_with_trades_before(kind):
    hours = [0] * 4 + [2] * 8 + [5] * 6 + [6] * 6
    ticks = trades_at(np.array(hours) * 3600.0 + np.arange(len(hours)))
    spec = bar_spec(kind, size=1200.0, history_hours=2)
    bars = build_bars(ticks, spec)
    # Hours 0 and 2 are burn-in. Hour 5: mean(4, 8) / 3 = 2 trades; hour 6: mean(8, 6) / 3 = 2.33,
    # so 3 trades.
    assert bars["n_trades"].to_list() == [2, 2, 2, 3, 3]
    assert bars["turnover"].sum() == 12 * 100.0


def test_adaptive_history_ends_the_burn_in_before_it_begins():
    hours = [0] * 4 + [2] * 4
    ticks = trades_at(np.array(hours) * 3600.0 + np.arange(len(hours)))
    history = pl.DataFrame(
        {"hour": [MIDNIGHT - k * NS_PER_HOUR for k in (9, 3, 2)], "volume": 3.0, "turnover": 300.0}
    )
    bars = build_bars(ticks, bar_spec("dollar_adaptive", size=2400.0, history_hours=2), history)
    # Hour 0: mean(3, 3) / 1.5 = 2 trades; hour 2: mean(3, 4) / 1.5 = 2.33, so 3 trades, and
    # midnight.
    assert bars["n_trades"].to_list() == [2, 2, 3, 1]


def test_hourly_totals_leave_out_hours_without_trades():
    totals = hourly_totals(trades_at([10.0, 20.0, 3600.0 * 5], price=[10.0, 20.0, 30.0], qty=2.0))
    assert (totals["hour"] - MIDNIGHT).to_list() == [0, 5 * NS_PER_HOUR]
    assert totals["volume"].to_list() == [4.0, 2.0]
    assert totals["turnover"].to_list() == [60.0, 60.0]


def test_adaptive_bar_keeps_the_threshold_of_the_hour_it_opened_in():
    hours = [0] * 8 + [1] * 3 + [2] * 9
    ticks = trades_at(np.array(hours) * 3600.0 + np.arange(len(hours)))
    bars = build_bars(ticks, bar_spec("volume_adaptive", size=1800.0, history_hours=1))
    # Hour 1 asks for 4: its bar ends with the first trade of hour 2, where 1.5 are asked for.
    assert bars["n_trades"].to_list() == [4, 2, 2, 2, 2]


def test_a_threshold_never_met_names_the_total_and_a_size():
    with pytest.raises(
        BarError,
        match=r"bars\.size=500 quote currency gives no bar: the data hold 300 .*try bars\.size=3$",
    ):
        build_bars(trades_at([1, 2, 3], end=4 * NS_PER_S), bar_spec("dollar", size=500.0))
    with pytest.raises(
        BarError,
        match=r"bars\.size=9 trades gives no bar: the data hold 3 trades in all; try bars\.size=1$",
    ):
        build_bars(trades_at([1, 2, 3]), bar_spec("tick", size=9))
    with pytest.raises(BarError, match="history_hours=4 gives no bar: the data hold 1 hours"):
        build_bars(trades_at([1, 2, 3]), bar_spec("volume_adaptive"))


def test_a_range_of_days_is_judged_as_a_whole():
    spec = bar_spec("tick", size=3)
    quiet, busy = trades_at([1, 2]), trades_at([1, 2, 3])
    frames = [build_bars(day, spec, allow_empty=True) for day in (quiet, busy)]
    assert frames[0]["partial"].to_list() == [True]
    assert require_bars(join_bars(frames, [False]), spec, 5).height == 2
    with pytest.raises(BarError, match="hold 4 trades"):
        require_bars(join_bars([frames[0]] * 2, [False]), spec, 2 * spec.available(quiet))


def test_joining_counts_gaps_across_days_without_bars():
    day = build_bars(trades_at([1, 2, 3]), bar_spec("tick", size=1))
    joined = join_bars([day, day.clear(), day], [False, True])
    assert joined["segment"].to_list() == [0, 0, 0, 1, 1, 1]
    assert joined["bar"].to_list() == list(range(6))


def test_first_quotes_of_a_bar_begin_at_its_midnight():
    ticks = random_ticks(n_trades=50, n_days=2)
    second = cut_ticks(ticks, ticks.start + NS_PER_DAY, ticks.end)
    bars = build_bars(second, bar_spec("tick", size=10))
    assert quote_bounds(ticks.quotes["ts_recv"].to_numpy(), bars)[[0, -1]].tolist() == [50, 100]
    assert trade_bounds(ticks.trades["ts_recv"].to_numpy(), bars)[[0, -1]].tolist() == [50, 100]


def test_bounds_of_no_bars():
    nothing = np.empty(0, np.int64)
    assert trade_bounds(nothing, empty(BARS)).tolist() == [0]
    assert quote_bounds(nothing, empty(BARS)).tolist() == [0]


def test_sizes_out_of_range_are_refused():
    for kind, size in (
        ("dollar", 0),
        ("tick", 0),
        ("time", 1e-4),
        ("time", 90_000),
        ("volume", -1.0),
    ):
        with pytest.raises(SpecError, match=r"bars\.size"):
            bar_spec(kind, size=size)
