"""Cleaning, ordering and cutting, against loops written from docs/definitions.md 5.1-5.3."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft.clock import NS_PER_S
from hft.market.data._clean import (
    KEPT,
    break_times,
    day_ticks,
    drop,
    drop_late,
    find_gaps,
    flag_missing_ids,
    min_delay,
    order,
    refuse_values,
    repair_clock,
    rise,
)
from hft.market.ticks import DataError, is_gap

rows = st.lists(
    st.tuples(st.integers(100, 150), st.integers(0, 30), st.integers(-40, 40)).map(
        lambda r: (r[0], r[1], r[0] + r[2])
    ),
    min_size=1,
    max_size=40,
)


def frame_of(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    """(ts_exch, id, ts_recv) in file order."""
    columns = {
        "ts_exch": [r[0] for r in rows],
        "id": [r[1] for r in rows],
        "ts_recv": [r[2] for r in rows],
    }
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))
    return frame.with_row_index("row").with_columns(reason=pl.lit(None, pl.String))


def slow_clean(rows, shift: int, floor: int, max_delay: int) -> list[tuple[int, int, int]]:
    """(ts_recv, ts_exch, id) of the rows that stay, one at a time."""
    median = statistics.median(recv - exch for exch, _, recv in rows)
    timely = [
        (exch, key, max(recv + shift, exch + floor), recv - exch <= median + max_delay)
        for exch, key, recv in rows
    ]
    kept, latest, seen = [], -(10**9), set()
    for exch, key, recv, in_time in sorted(timely, key=lambda r: r[:3]):
        if in_time and (exch, key) not in seen:
            latest = max(latest, recv)
            kept.append((latest, exch, key))
        seen.add((exch, key))
    return kept


@given(rows=rows, floor=st.integers(0, 5), max_delay=st.integers(1, 30))
def test_a_stream_is_cleaned_as_by_a_loop(rows, floor, max_delay):
    frame = drop_late(frame_of(rows), max_delay)
    shift = max(0, floor - min_delay([frame]))
    clean = rise(order(repair_clock(frame, shift, floor), "id")).filter(KEPT)
    assert list(clean.select("ts_recv", "ts_exch", "id").iter_rows()) == slow_clean(
        rows, shift, floor, max_delay
    )
    assert clean["ts_recv"].is_sorted()
    assert (clean["ts_recv"] >= clean["ts_exch"] + floor).all()


@given(rows=rows, floor=st.integers(0, 5))
def test_the_shift_alone_repairs_the_day_it_was_found_on(rows, floor):
    frame = frame_of(rows)
    repaired = repair_clock(frame, max(0, floor - min_delay([frame])), floor)
    assert not repaired["clock_raised"].any()
    assert min_delay([repaired]) >= floor


def test_later_drift_is_lifted_to_the_floor_and_flagged():
    repaired = repair_clock(frame_of([(100, 1, 101), (100, 2, 60)]), 5, 3)
    assert repaired["ts_recv"].to_list() == [106, 103]
    assert repaired["clock_raised"].to_list() == [False, True]


def test_a_late_row_is_dropped_before_it_can_lift_the_others():
    frame = drop_late(frame_of([(10, 1, 11), (11, 2, 500), (12, 3, 13)]), 100)
    clean = rise(order(frame, "id"))
    assert clean["reason"].to_list() == [None, "late", None]
    assert clean["ts_recv"].to_list() == [11, 500, 13]


def test_an_hour_is_late_against_its_own_median():
    hour = 3600 * NS_PER_S
    rows = [
        (hour * h + i, i, hour * h + i + delay)
        for h, delay in ((1, 10), (2, 500))
        for i in range(5)
    ]
    assert drop_late(frame_of([*rows, (2 * hour + 9, 9, 2 * hour + 2000)]), 100)[
        "reason"
    ].to_list() == [None] * 10 + ["late"]


def test_a_reason_once_given_stays():
    frame = drop(frame_of([(1, 1, 1)]), pl.lit(True), "first")
    assert drop(frame, pl.lit(True), "second")["reason"].to_list() == ["first"]


def test_missing_ids_are_counted_and_long_holes_break_the_chain():
    frame = frame_of([(1, 1, 1), (2, 2, 2), (3, 5, 3), (4, 5, 4), (5, 9, 5)])
    flagged = flag_missing_ids(frame, "id", "id", max_hole=2)
    assert flagged["missing_ids"].to_list() == [0, 0, 2, 0, 3]
    assert break_times(flagged).tolist() == [5]


def test_a_break_at_a_dropped_row_starts_with_the_next_event():
    frame = drop(frame_of([(1, 1, 1), (2, 5, 2), (3, 6, 3)]), pl.col("id") == 5, "not_market")
    assert break_times(flag_missing_ids(frame, "id", "id", max_hole=0)).tolist() == [3]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), None])
def test_bad_values_are_named_by_file_and_row(value):
    frame = pl.DataFrame(
        {"row": [7, 8], "reason": [None, None], "price": [1.0, value]},
        schema_overrides={"reason": pl.String},
    )
    with pytest.raises(DataError, match=r"file\.gz, row 8: price must be a finite number > 0"):
        refuse_values(frame, ["price"], where="file.gz")


@given(
    st.lists(st.integers(0, 100), max_size=30),
    st.lists(st.integers(0, 100), max_size=30),
    st.integers(1, 20),
)
def test_gaps_are_silences_of_all_streams(first, second, gap):
    streams = [
        pl.DataFrame({"ts_recv": sorted(ts)}, schema={"ts_recv": pl.Int64})
        for ts in (first, second)
    ]
    merged = sorted(first + second)
    slow = [b for a, b in itertools.pairwise(merged) if is_gap(a, b, gap / NS_PER_S)]
    assert find_gaps(streams, gap / NS_PER_S).tolist() == slow


def quotes_of(bids: list[float]) -> pl.DataFrame:
    n = len(bids)
    frame = pl.DataFrame(
        {
            "ts_recv": range(n),
            "ts_exch": range(n),
            "seq": range(n),
            "bid": bids,
            "bid_qty": [1.0] * n,
        }
    )
    frame = frame.with_columns(
        ask=pl.lit(100.0), ask_qty=pl.lit(1.0), reason=pl.lit(None, pl.String)
    )
    return drop(frame, pl.col("bid") >= pl.col("ask"), "crossed")


def cut(quotes: pl.DataFrame):
    return day_ticks(
        {"quotes": quotes},
        bounds=(0, 1000),
        open_ends=(True, True),
        breaks=np.empty(0, np.int64),
        gap_s=300.0,
        n_levels=0,
        where="day.zip",
        notes={},
    )


def test_a_few_crossed_quotes_are_dropped_and_counted():
    ticks = cut(quotes_of([99.0] * 200 + [100.0]))
    assert ticks.quotes.height == 200
    assert ticks.notes["quotes_crossed"] == 1
    assert (ticks.start, ticks.end) == (0, 200)


def test_many_crossed_quotes_are_an_error():
    with pytest.raises(
        DataError, match=r"day\.zip: 2 of 102 rows of quotes have bid >= ask, at most 1%"
    ):
        cut(quotes_of([99.0] * 100 + [101.0] * 2))
