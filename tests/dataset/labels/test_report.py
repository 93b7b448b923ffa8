"""What a run logs about its labels, and which labels needed the ticks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_MS
from hft.dataset.labels import (
    build_labels,
    class_shares,
    effective_labels,
    label_report,
    random_walk_shares,
)
from hft.dataset.labels._paths import read_paths
from hft.dataset.labels._resolved import needs_prints
from hft.dataset.labels._weights import end_bars
from tests.dataset.labels.hand import label_spec, market, markets

LEAD = [[(0, 100.0)], [(10, 100.1)], [(20, 100.0)]]


def spec(kind="triple_barrier", **changes):
    small = {"horizon": 3, "width": 1e-6, "floor_bps": 100.0, "span": 1, "latency_ms": 0.0}
    return label_spec(kind, **small | changes)


def resolved(ticks, bars, label):
    labels = build_labels(ticks, bars, label)
    paths = read_paths(ticks, bars, horizon=label.horizon, latency_ms=label.latency_ms)
    return needs_prints(
        paths, bars, label.exits(bars), end_bars(bars, labels), label.offered(bars)
    ), labels


def of_bar_2(*later, **changes):
    ticks, bars = market([*LEAD, *later])
    return resolved(ticks, bars, spec(**changes))[0][2]


def test_both_barriers_inside_a_bar_need_the_prints():
    assert of_bar_2([(30, 100.0)], [(40, 98.0), (41, 102.0)], [(50, 100.0)])


def test_one_barrier_inside_a_later_bar_does_not():
    assert not of_bar_2([(30, 100.0)], [(40, 98.0), (41, 100.0)], [(50, 102.0)])
    assert not of_bar_2([(30, 100.0)], [(40, 100.0)], [(50, 100.0)])


def test_the_bar_of_the_entry_needs_them_when_its_range_meets_a_barrier():
    # Its first print, before the entry, lies above the barrier: highs and lows do not say when.
    assert of_bar_2(
        [(30, 105.0), (31, 100.0), (32, 100.1)], [(40, 100.1)], [(50, 100.1)], latency_ms=11.0
    )
    assert not of_bar_2(
        [(30, 100.5), (31, 100.0), (32, 100.1)], [(40, 100.1)], [(50, 100.1)], latency_ms=11.0
    )


def test_two_trades_that_win_in_one_bar_need_them():
    wide = {
        "width": 0.5,
        "sl": 50.0,
        "floor_bps": 0.0,
    }  # pt 8.65 bps, sl 865 bps: no bar holds both of one trade
    assert of_bar_2([(30, 100.0)], [(40, 100.1), (41, 99.9)], [(50, 100.0)], **wide)
    assert not of_bar_2([(30, 100.0)], [(40, 100.1)], [(50, 99.9)], **wide)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    markets(),
    st.sampled_from([(0.6, 0.6), (0.6, 1.5), (1.5, 0.6)]),
    st.sampled_from(["triple_barrier", "meta"]),
    st.integers(0, 2**31),
)
def test_a_label_that_needs_no_prints_keeps_its_class_whatever_their_order_in_a_bar(
    scene, widths, kind, seed
):
    ticks, bars = scene
    rule = {"primary": {"signal": "return", "window": 1, "threshold": 0.0, "direction": "follow"}}
    changes = {"width": widths[0], "sl": widths[1], "floor_bps": 10.0} | (
        rule if kind == "meta" else {}
    )
    label = spec(kind, **changes)
    needs, labels = resolved(ticks, bars, label)
    mixed = _shuffled_inside_bars(ticks, bars, np.random.default_rng(seed))
    again = build_labels(mixed, bars, label)
    paths, other = (read_paths(t, bars, horizon=3, latency_ms=0.0) for t in (ticks, mixed))
    # The entry must be the same print, else it is another trade.
    same = (paths.entry == other.entry) & (paths.first == other.first)
    sure = labels["y"].is_not_null().to_numpy() & ~needs & same
    assert labels["y"].filter(sure).to_list() == again["y"].filter(sure).to_list()


def _shuffled_inside_bars(ticks, bars, rng):
    """Prices of each bar in another order, their times left alone."""
    price, start = ticks.trades["price"].to_numpy().copy(), 0
    for n in bars["n_trades"].to_list():
        price[start : start + n] = rng.permutation(price[start : start + n])
        start += n
    return type(ticks)(**vars(ticks) | {"trades": ticks.trades.with_columns(price=price)})


def test_the_report_counts_what_it_says():
    later = (
        [(30, 100.0)],
        [(40, 98.0), (41, 102.0)],
        [(50, 100.0)],
        [(60, 100.0)],
        [(70, 100.0)],
        [(80, 100.0)],
    )
    ticks, bars = market([*LEAD, *later])
    label = spec(weights="uniqueness")
    labels = build_labels(ticks, bars, label)
    assert labels["y"].to_list() == [None, None, 2, 1, 0, 0, None, None, None]
    period_T = np.arange(9) < 8
    rows_T = period_T & labels["y"].is_not_null().to_numpy() & (np.arange(9) != 5)
    report = label_report(ticks, bars, labels, label, rows_T=rows_T, period_T=period_T, seed=4)
    assert report["rows"] == 3
    assert {n: report[n] for n in ("hold", "buy", "sell")} == class_shares(labels.filter(rows_T))
    # Bar 2 enters at 100 and is sold at 98; bar 3 enters at that print and is bought at 102, both
    # inside bar 4.
    ends = end_bars(bars, labels)
    assert report["holding_bars"] == pytest.approx(np.mean([ends[2] - 2, ends[3] - 3, ends[4] - 4]))
    held = [labels["t_end"][i] - bars["ts"][i] for i in (2, 3, 4)]
    assert report["holding_s"] == pytest.approx(np.mean(held) / 1e9)
    assert report["n_eff"] == effective_labels(labels, bars, rows_T=rows_T)
    assert report["resolved_on_ticks"] == pytest.approx(2 / 3)
    assert report["unknowable"] == 4  # bars 0, 1, 6 and 7
    walk = random_walk_shares(bars.filter(period_T), label, seed=4)
    assert {n: report[f"random_walk_{n}"] for n in walk} == walk


def test_seconds_are_counted_from_the_entry():
    ticks, bars = market([[(1000 * i, 100.0)] for i in range(8)])
    label = spec(latency_ms=100.0)
    labels = build_labels(ticks, bars, label)
    known = labels["y"].is_not_null().to_numpy()
    report = label_report(ticks, bars, labels, label, rows_T=known, period_T=known, seed=0)
    assert report["holding_bars"] == 3
    assert report["holding_s"] == pytest.approx(3 - 100 * NS_PER_MS / 1e9)
    assert report["resolved_on_ticks"] == report["unknowable"] == 0


def test_bars_that_carry_no_decision_are_not_unknowable():
    ticks, bars = market([[(1000 * i, 100.0)] for i in range(9)])
    label = spec(events={"every": 3, "cusum": 0.0, "span": 1})
    labels = build_labels(ticks, bars, label)
    every_T = np.ones(9, bool)
    report = label_report(ticks, bars, labels, label, rows_T=every_T, period_T=every_T, seed=0)
    assert report["rows"] == 1  # bar 3: bar 0 knows no volatility, bar 6 has too few bars behind it
    assert report["unknowable"] == 2


def test_no_row_gives_no_shares():
    ticks, bars = market([[(i, 100.0)] for i in range(3)])
    none_T = np.zeros(3, bool)
    label = label_spec("fixed_horizon", horizon=5)
    report = label_report(
        ticks, bars, build_labels(ticks, bars, label), label, rows_T=none_T, period_T=none_T, seed=0
    )
    assert report["rows"] == report["n_eff"] == 0
    assert math.isnan(report["holding_bars"])
