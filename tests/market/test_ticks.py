"""Ticks of days joined, cut, and parted by gaps."""

from __future__ import annotations

import dataclasses

import pytest

from hft.clock import NS_PER_DAY
from hft.market.ticks import DataError, cut_ticks, join_ticks
from tests.random_market import random_ticks


def test_cut_and_join_are_inverse():
    ticks = random_ticks(n_days=2, n_trades=300)
    middle = ticks.start + NS_PER_DAY
    parts = [cut_ticks(ticks, ticks.start, middle), cut_ticks(ticks, middle, ticks.end)]
    joined = join_ticks(parts, gap_s=10 * 3600)
    assert joined.trades.equals(ticks.trades)
    assert joined.quotes.equals(ticks.quotes)
    assert (joined.start, joined.end, joined.gaps.tolist()) == (ticks.start, ticks.end, [])


def test_joining_finds_the_gap_between_days_and_adds_counts():
    ticks = random_ticks(n_days=3, n_trades=300)
    days = [
        cut_ticks(ticks, ticks.start + i * NS_PER_DAY, ticks.start + (i + 1) * NS_PER_DAY)
        for i in (0, 2)
    ]
    notes = {"trades": 300, "unknown_side": 30, "clock_shift_ms": 1.5}
    joined = join_ticks([dataclasses.replace(day, notes=notes) for day in days], gap_s=300.0)
    assert joined.gaps.tolist() == [days[1].first_event()]
    assert joined.notes == {
        "trades": 600,
        "unknown_side": 60,
        "clock_shift_ms": 1.5,
        "unknown_side_share": 0.1,
        "gaps": 1,
    }


def test_a_period_without_trades_is_an_error():
    ticks = random_ticks(n_trades=50)
    with pytest.raises(
        DataError, match="no trades between 2024-01-01T00:00:00Z and 2024-01-02T00:00:00Z"
    ):
        join_ticks([dataclasses.replace(ticks, trades=ticks.trades.clear())], gap_s=300.0)
