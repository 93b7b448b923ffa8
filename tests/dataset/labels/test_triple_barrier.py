from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_MS
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset.labels import build_labels
from hft.schema import BUY, HOLD, SELL
from hft.spec import SpecError, UserError
from tests.dataset.labels.hand import label_spec, market, markets
from tests.dataset.labels.naive import naive_triple, rows


def spec(**changes):
    """Unless a test asks for more: widths so small that the floor of 100 bps is the distance."""
    small = {"horizon": 3, "width": 1e-6, "floor_bps": 100.0, "span": 1, "latency_ms": 0.0}
    return label_spec("triple_barrier", **small | changes)


# Four bars, so that bar 2 has a known volatility: span 1 needs 2 returns.
LEAD = [[(0, 100.0)], [(10, 100.1)], [(20, 100.0)]]


def label_of_bar_2(*later, quotes=(), **changes):
    """(y, t_end in ms, ret_bps) of the decision at 20 ms; three bars follow."""
    ticks, bars = market([*LEAD, *later], quotes=quotes)
    row = rows(build_labels(ticks, bars, spec(**changes)))[2]
    return row if row is None else (row[0], row[1] / NS_PER_MS, round(row[2], 6))


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    markets(),
    st.integers(1, 5),
    st.sampled_from([0.0, 1.0, 3.0, 20.0]),
    st.sampled_from([(0.6, 0.6), (0.6, 1.5), (1.5, 0.6), (0.3, 3.0), (1e-6, 1e-6)]),
    st.sampled_from([0.0, 10.0, 30.0]),
    st.integers(1, 2),
)
def test_equals_reading_every_print(scene, horizon, latency_ms, widths, floor_bps, span):
    ticks, bars = scene
    chosen = {"horizon": horizon, "latency_ms": latency_ms, "width": widths[0], "sl": widths[1]}
    label = spec(**chosen, floor_bps=floor_bps, span=span)
    exits = label.exits(bars)
    expected = [
        naive_triple(ticks, bars, t, horizon, round(latency_ms * NS_PER_MS), tp, sl)
        for t, (tp, sl) in enumerate(zip(exits.take_profit, exits.stop_loss, strict=True))
    ]
    assert rows(build_labels(ticks, bars, label)) == expected


@settings(deadline=None, derandomize=True, max_examples=50)
@given(markets(), st.sampled_from([(0.5, 2.0), (2.0, 0.5)]))
def test_barriers_are_the_widths_times_sigma_root_horizon_and_never_under_the_floor(scene, widths):
    _, bars = scene
    label = spec(horizon=4, width=widths[0], sl=widths[1], floor_bps=20.0)
    exits = label.exits(bars)
    close, segment = bars["close"].to_list(), bars["segment"].to_list()
    for t in range(bars.height):
        if t < 2 or len(set(segment[t - 2 : t + 1])) > 1:
            assert math.isnan(exits.take_profit[t])
            assert math.isnan(exits.stop_loss[t])
        else:
            sigma = abs(math.log(close[t] / close[t - 1]))  # span 1: a = 1
            assert exits.take_profit[t] == pytest.approx(
                max(widths[0] * sigma * 2, 0.002), abs=1e-12
            )
            assert exits.stop_loss[t] == pytest.approx(max(widths[1] * sigma * 2, 0.002), abs=1e-12)


def test_the_first_touch_counts_though_the_other_barrier_follows():
    # Entry at the next print, 100; barriers 101 and 99.
    assert label_of_bar_2([(30, 100.0), (31, 101.0)], [(40, 99.0)], [(50, 99.0)]) == (
        BUY,
        31,
        100.0,
    )
    assert label_of_bar_2([(30, 100.0), (31, 99.0)], [(40, 101.0)], [(50, 101.0)]) == (
        SELL,
        31,
        -100.0,
    )


def test_no_touch_before_the_close_of_bar_t_plus_h_is_hold_with_the_last_print():
    assert label_of_bar_2([(30, 100.0)], [(40, 100.5)], [(50, 100.9), (51, 100.2)]) == (
        HOLD,
        51,
        20.0,
    )


def test_both_barriers_inside_one_bar_are_resolved_on_its_prints():
    assert label_of_bar_2([(30, 100.0)], [(40, 98.0), (41, 102.0)], [(50, 100.0)]) == (
        SELL,
        40,
        -200.0,
    )
    assert label_of_bar_2([(30, 100.0)], [(40, 102.0), (41, 98.0)], [(50, 100.0)]) == (
        BUY,
        40,
        200.0,
    )


def test_prints_of_the_entry_bar_before_the_entry_do_not_touch():
    later = [(30, 105.0), (31, 100.0), (32, 100.1)], [(40, 100.1)], [(50, 100.1)]
    assert label_of_bar_2(*later, latency_ms=11.0) == (HOLD, 50, 10.0)


def test_the_return_is_that_of_the_touching_print_which_may_gap_through():
    assert label_of_bar_2([(30, 100.0)], [(40, 103.0)], [(50, 100.0)]) == (BUY, 40, 300.0)


def test_entry_is_the_mid_in_force_after_latency():
    quotes = [(15, 99.9, 100.1), (25, 199.0, 201.0), (26, 1.0, 2.0)]
    # At 25 ms the mid is 200: barriers 202 and 198, so the prints near 100 touch the lower one at
    # once.
    touched = label_of_bar_2(
        [(30, 100.0)], [(40, 100.0)], [(50, 100.0)], quotes=quotes, latency_ms=5.0
    )
    assert touched == (SELL, 30, -5000.0)
    held = label_of_bar_2(
        [(30, 100.0)], [(40, 100.0)], [(50, 100.5)], quotes=quotes, latency_ms=4.0
    )
    assert held == (HOLD, 50, 50.0)


def test_a_quote_at_the_entry_time_stands_behind_the_prints_of_that_time():
    quotes = [(30, 99.9, 100.1)]
    label = label_of_bar_2(
        [(30, 105.0)], [(40, 100.0)], [(50, 100.2)], quotes=quotes, latency_ms=10.0
    )
    assert label == (HOLD, 50, 20.0)


def test_entry_without_quotes_is_a_later_print_even_at_the_same_millisecond():
    # The decision at 20 ms; the next print ties with it, is the entry, and cannot touch its own
    # barrier.
    assert label_of_bar_2([(20, 102.0), (30, 102.0)], [(40, 102.5)], [(50, 102.0)]) == (
        HOLD,
        50,
        0.0,
    )


def test_a_later_decision_may_enter_earlier_in_the_stream():
    # Bar 2 decides before the first quote and waits for the print at 130 ms; bar 3 enters at the
    # mid of 121 ms.
    later = [(21, 100.0)], [(130, 101.0)], [(140, 101.0)], [(150, 100.0)]
    ticks, bars = market([*LEAD, *later], quotes=[(121, 99.9, 100.1)])
    of_bar_2, of_bar_3 = rows(build_labels(ticks, bars, spec(latency_ms=100.0)))[2:4]
    assert of_bar_2 == (HOLD, 140 * NS_PER_MS, 0.0)
    assert of_bar_3[:2] == (BUY, 130 * NS_PER_MS)


def test_with_pt_under_sl_both_trades_may_win_and_the_earlier_counts():
    wide = {
        "width": 0.5,
        "sl": 50.0,
        "floor_bps": 0.0,
    }  # sigma 10 bps, root 3: pt 8.65 bps, sl 865 bps
    assert label_of_bar_2([(30, 100.0), (31, 100.1)], [(40, 99.9)], [(50, 100.0)], **wide) == (
        BUY,
        31,
        10.0,
    )
    assert label_of_bar_2([(30, 100.0), (31, 99.9)], [(40, 100.1)], [(50, 100.0)], **wide) == (
        SELL,
        31,
        -10.0,
    )


def test_with_pt_over_sl_a_trade_that_was_stopped_does_not_win_later():
    narrow = {"width": 50.0, "sl": 0.5, "floor_bps": 0.0}  # pt 865 bps, sl 8.65 bps
    # Up 10 bps stops the short, then down 10 bps from the entry stops the long: hold until the
    # expiry, return signed.
    later = [(30, 100.0), (31, 100.1)], [(40, 99.9)], [(50, 120.0)]
    assert label_of_bar_2(*later, **narrow) == (HOLD, 50, 2000.0)
    assert label_of_bar_2([(30, 100.0), (31, 100.1)], [(40, 120.0)], [(50, 99.0)], **narrow) == (
        BUY,
        40,
        2000.0,
    )


def test_the_last_bars_of_a_segment_have_no_label_touched_or_not():
    gap = 400_000
    ticks, bars = market(
        [
            *LEAD,
            [(30, 100.0)],
            [(40, 110.0)],
            [(gap, 110.0)],
            [(gap + 1, 110.1)],
            [(gap + 2, 110.0)],
        ],
        gaps_ms=[gap],
    )
    assert rows(build_labels(ticks, bars, spec(horizon=3))) == [None] * 8
    assert [r is None for r in rows(build_labels(ticks, bars, spec(horizon=2)))] == [True] * 2 + [
        False
    ] + [True] * 5


def test_an_entry_that_no_print_follows_before_the_expiry_has_no_label():
    later = [(30, 100.0)], [(40, 100.0)], [(50, 100.0)]
    assert (
        label_of_bar_2(*later, latency_ms=30.0) is None
    )  # enters at the print that closes bar t + H
    assert label_of_bar_2(*later, latency_ms=31.0) is None  # enters never
    assert label_of_bar_2(*later, latency_ms=20.0) == (HOLD, 50, 0.0)


def test_a_price_that_never_moved_has_no_distance_and_no_label():
    ticks, bars = market([[(10 * i, 100.0)] for i in range(8)])
    assert rows(build_labels(ticks, bars, spec(floor_bps=0.0))) == [None] * 8
    assert rows(build_labels(ticks, bars, spec(floor_bps=1.0)))[2][0] == HOLD


def test_the_floor_may_be_the_round_trip_of_a_fee_schedule():
    label = make_config(
        TrainConfig, ["labels.floor_fee_bps=${fees.binance_usdm_vip0.taker_bps}"]
    ).labels
    assert label.floor_fee_bps == 5.0
    _, bars = market([[(10 * i, 100.0 + 0.001 * (i % 2))] for i in range(120)])
    for distance in (label.exits(bars).take_profit, label.exits(bars).stop_loss):
        assert distance[-1] == pytest.approx(10e-4)
    with pytest.raises(
        SpecError, match=r"labels.floor_fee_bps: an interpolation does not resolve: .*binance_vip0"
    ):
        make_config(TrainConfig, ["labels.floor_fee_bps=${fees.binance_vip0.taker_bps}"])


@pytest.mark.parametrize(
    ("floor_bps", "floor_fee_bps", "distance"), [(30.0, 10.0, 30e-4), (30.0, 20.0, 40e-4)]
)
def test_the_higher_floor_counts(floor_bps, floor_fee_bps, distance):
    _, bars = market([*LEAD])
    exits = spec(floor_bps=floor_bps, floor_fee_bps=floor_fee_bps).exits(bars)
    assert (exits.take_profit[2], exits.stop_loss[2]) == pytest.approx((distance, distance))


def test_a_width_that_neither_side_uses_is_refused():
    with pytest.raises(
        SpecError, match=r"width must be the value of pt or sl.*width=1.0, pt=2.0, sl=1.5"
    ):
        spec(width=1.0, pt=2.0, sl=1.5)
    assert (spec(width=2.0, sl=1.5).pt, spec(width=2.0, sl=1.5).sl) == (2.0, 1.5)
    assert issubclass(SpecError, UserError)
