"""Cleans the raw rows of a source and cuts them to Ticks of one UTC day: order, clock repair,
drops, gaps (docs/definitions.md 5.1-5.3, 5.9).

A raw stream is a frame with its contract's columns plus `row` (place in its file, for messages) and
`reason` (null for a row that stays). A dropped row stays in the frame with its reason until the day
is cut: so each day counts its own rows, and no row is counted on two days.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from hft.clock import NS_PER_HOUR
from hft.market.ticks import DataError, Ticks, after_gaps
from hft.schema import QUOTES, TRADES, Columns, book_columns, check, empty

KEPT = pl.col("reason").is_null()
# Real captures have none; more than this is a swapped column, or two books in one stream.
MAX_CROSSED_SHARE = 0.01
FLAGS = ("unsorted", "clock_raised", "missing_ids")


def refuse_values(frame: pl.DataFrame, columns: list[str], *, where: str) -> pl.DataFrame:
    """`frame` itself. DataError names the first row with a blank, NaN, infinite or non-positive
    value.
    """
    for column in columns:
        good = (pl.col(column).is_finite() & (pl.col(column) > 0)).fill_null(False)
        # Kept rows alone: prints that are no market trades come with a price of 0 (docs/formats.md
        # 4).
        for row in frame.filter(KEPT & ~good).head(1).iter_rows(named=True):
            raise DataError(
                f"{where}, row {row['row']}: {column} must be a finite number > 0, "
                f"got {row[column]}: fetch the file again, or delete that row"
            )
    return frame


def drop(frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
    """Marks kept rows where `condition` is true (a null is not)."""
    return frame.with_columns(
        # The first reason stays, so that no row is counted twice.
        reason=pl.when(KEPT & condition).then(pl.lit(reason)).otherwise(pl.col("reason"))
    )


def flag_unsorted(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """`unsorted` where (ts_exch, key) falls behind that of the row before, in file order."""
    before, before_key = pl.col("ts_exch").shift(1), pl.col(key).shift(1)
    back = (pl.col("ts_exch") < before) | (
        (pl.col("ts_exch") == before) & (pl.col(key) < before_key)
    )
    return frame.with_columns(unsorted=back.fill_null(False))


def drop_late(frame: pl.DataFrame, max_delay_ns: int) -> pl.DataFrame:
    """Drops rows that arrived much later than usual (docs/definitions.md 5.2), in the recorder's
    own clock. The usual delay is the median of the row's hour, because clocks drift over months and
    because both days that read a row at midnight must judge it alike.
    """
    delay = pl.col("ts_recv") - pl.col("ts_exch")
    # By receive time: a late row is judged in the hour in which it came.
    return drop(
        frame, delay > delay.median().over(pl.col("ts_recv") // NS_PER_HOUR) + max_delay_ns, "late"
    )


def min_delay(frames: list[pl.DataFrame]) -> int | None:
    """Smallest ts_recv - ts_exch (ns) of all frames; None when no row has both times."""
    delays = [f.select((pl.col("ts_recv") - pl.col("ts_exch")).min()).item() for f in frames]
    return min((d for d in delays if d is not None), default=None)


def repair_clock(frame: pl.DataFrame, shift_ns: int, floor_ns: int) -> pl.DataFrame:
    """ts_recv = max(ts_recv + shift, ts_exch + floor), `clock_raised` where the floor decides:
    docs/definitions.md 5.2.
    """
    shifted, least = pl.col("ts_recv") + shift_ns, pl.col("ts_exch") + floor_ns
    return frame.with_columns(
        ts_recv=pl.max_horizontal(shifted, least), clock_raised=(shifted < least).fill_null(False)
    )


def order(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """Sorts by (ts_exch, key), the exchange's order: docs/definitions.md 5.1. Of rows equal in both
    the first received stays.
    """
    # maintain_order: ties in all three must not change places from run to run.
    frame = frame.sort("ts_exch", key, "ts_recv", nulls_last=False, maintain_order=True)
    # By both: archives give one id to two trades now and then (docs/formats.md 4).
    same = (pl.col("ts_exch") == pl.col("ts_exch").shift(1)) & (pl.col(key) == pl.col(key).shift(1))
    return drop(frame, same, "duplicate")


def rise(frame: pl.DataFrame) -> pl.DataFrame:
    """Makes ts_recv of kept rows non-decreasing, by a running maximum."""
    # A dropped row must not lift those behind it: a late one would, by all of its delay.
    running = pl.when(KEPT).then(pl.col("ts_recv")).cum_max()
    return frame.with_columns(ts_recv=pl.when(KEPT).then(running).otherwise(pl.col("ts_recv")))


def flag_missing_ids(frame: pl.DataFrame, first: str, last: str, *, max_hole: int) -> pl.DataFrame:
    """`missing_ids`: how many ids are absent before each row; `broken`: whether they are more than
    `max_hole`. The id of a dropped print is present.
    """
    # Aggregates that overlap, and rows equal in id, would count as negative holes.
    hole = (pl.col(first) - pl.col(last).shift(1) - 1).clip(lower_bound=0).fill_null(0)
    return frame.with_columns(missing_ids=hole, broken=hole > max_hole)


def break_times(frame: pl.DataFrame) -> np.ndarray:
    """ts_recv of the first kept row at or after each break of the id chain."""
    # The chain may break at a dropped row; what follows the break is the next event that stays.
    at = pl.when(KEPT).then(pl.col("ts_recv")).backward_fill()
    return frame.select(at.filter(pl.col("broken"))).to_series().drop_nulls().to_numpy()


def find_gaps(streams: list[pl.DataFrame], gap_s: float) -> np.ndarray:
    """ts_recv of the first event after each silence of all streams that is longer than `gap_s`."""
    # Each stream is sorted already, and a stable sort merges sorted runs.
    ts = np.sort(np.concatenate([s["ts_recv"].to_numpy() for s in streams]), kind="stable")
    return after_gaps(ts, gap_s)


def day_ticks(
    streams: dict[str, pl.DataFrame],
    *,
    bounds: tuple[int, int],
    open_ends: tuple[bool, bool],
    breaks: np.ndarray,
    gap_s: float,
    n_levels: int,
    where: str,
    notes: dict[str, Any],
) -> Ticks:
    """Ticks of [bounds) out of whole cleaned streams. The notes count dropped rows by reason.

    `open_ends`: whether the range may begin at the first event (end after the last one) of the data
    instead of at its bound. It does so unless kept rows beyond the bound show that the day is
    complete on that side.
    """
    start, end = bounds
    contracts: dict[str, Columns] = {
        "trades": TRADES,
        "quotes": QUOTES,
        "book": book_columns(n_levels),
    }
    cut: dict[str, pl.DataFrame] = {}
    counts: dict[str, int] = {}
    for name, contract in contracts.items():
        if name not in streams:
            cut[name] = empty(contract)
            continue
        # By ts_recv and after the clock repair: docs/definitions.md 5.2.
        inside = streams[name].filter(pl.col("ts_recv").is_between(start, end, closed="left"))
        counts |= _counts(inside, name)
        cut[name] = check(
            inside.filter(KEPT).select(list(contract)), contract, where=f"{where}: {name}"
        )
    # A few crossed rows were dropped; many mean that the columns or the file are wrong.
    for name in ("quotes", "book"):
        _refuse_crossed(counts, name, where)
    gaps = np.concatenate(
        # Silences of this day alone; join_ticks looks for those between days.
        [breaks[(breaks >= start) & (breaks < end)], find_gaps(list(cut.values()), gap_s)]
    )
    ticks = Ticks(
        trades=cut["trades"],
        quotes=cut["quotes"],
        book=cut["book"],
        start=start,
        end=end,
        gaps=np.unique(gaps).astype(np.int64),
    )
    notes = notes | counts | {"gaps": len(ticks.gaps)} | _side_notes(cut["trades"])
    start, end = (
        _open_start(ticks, streams, is_open=open_ends[0]),
        _open_end(ticks, streams, is_open=open_ends[1]),
    )
    return replace(ticks, start=start, end=end, notes=notes)


def _open_start(ticks: Ticks, streams: dict[str, pl.DataFrame], *, is_open: bool) -> int:
    first = ticks.first_event()
    before = any(
        s.filter(KEPT & (pl.col("ts_recv") < ticks.start)).height for s in streams.values()
    )
    return first if is_open and first is not None and not before else ticks.start


def _open_end(ticks: Ticks, streams: dict[str, pl.DataFrame], *, is_open: bool) -> int:
    last = ticks.last_event()
    beyond = any(s.filter(KEPT & (pl.col("ts_recv") >= ticks.end)).height for s in streams.values())
    # The end is exclusive, so the last event lies one nanosecond before it.
    return last + 1 if is_open and last is not None and not beyond else ticks.end


def _counts(inside: pl.DataFrame, name: str) -> dict[str, int]:
    reasons = inside["reason"].value_counts().iter_rows()
    counts = {name if reason is None else f"{name}_{reason}": int(n) for reason, n in reasons}
    flags = {f"{name}_{f}": int(inside.filter(KEPT)[f].sum()) for f in FLAGS if f in inside.columns}
    return {name: 0} | counts | flags


def _refuse_crossed(counts: dict[str, int], name: str, where: str) -> None:
    crossed, kept = counts.get(f"{name}_crossed", 0), counts.get(name, 0)
    if crossed > MAX_CROSSED_SHARE * (crossed + kept):
        raise DataError(
            f"{where}: {crossed} of {crossed + kept} rows of {name} have bid >= ask, at most "
            f"{MAX_CROSSED_SHARE:.0%} may: are bid and ask swapped, or two instruments in one file?"
        )


def _side_notes(trades: pl.DataFrame) -> dict[str, Any]:
    unknown = int((trades["side"] == 0).sum())
    return {"unknown_side": unknown, "unknown_side_share": unknown / max(trades.height, 1)}
