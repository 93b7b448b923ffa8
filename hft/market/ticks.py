"""Ticks: trades, quotes and book of a time range in one clock. Joins days of them, cuts them, and
says what a gap is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from hft.clock import NS_PER_S, to_iso
from hft.schema import QUOTES, TRADES, book_columns, check
from hft.spec import UserError


class DataError(UserError):
    """Input data that breaks a rule: file, row or value, and the remedy."""


@dataclass(frozen=True)
class Ticks:
    """Market data of [start, end) ns; every stream has non-decreasing ts_recv, and trades precede
    quotes at a tie.

    `quotes` and `book` have no rows where the source has none. `gaps` holds the ts_recv of the
    first event after each gap (int64 ns). `end` is a UTC midnight exactly when the last day is
    complete. `notes` is the quality report: integers are counts and add up over days, everything
    else is a constant of the source or a share.
    """

    trades: pl.DataFrame
    quotes: pl.DataFrame
    book: pl.DataFrame
    start: int
    end: int
    gaps: np.ndarray
    notes: dict[str, Any] = field(default_factory=dict)

    def streams(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        return self.trades, self.quotes, self.book

    def n_levels(self) -> int:
        # Three columns of times and ids, and four per level.
        return (self.book.width - 3) // 4

    def first_event(self) -> int | None:
        """Earliest ts_recv of any stream; None without events."""
        return min((int(s["ts_recv"][0]) for s in self.streams() if s.height), default=None)

    def last_event(self) -> int | None:
        """Latest ts_recv of any stream; None without events."""
        return max((int(s["ts_recv"][-1]) for s in self.streams() if s.height), default=None)


def join_ticks(days: list[Ticks], gap_s: float) -> Ticks:
    """Ticks of consecutive days as one, with the gaps that lie between two days. DataError when no
    day has a trade.
    """
    assert all(a.end <= b.start for a, b in itertools.pairwise(days)), (
        "days must be in order and apart"
    )
    start, end = days[0].start, days[-1].end
    if not any(day.trades.height for day in days):
        raise DataError(
            f"data: no trades between {to_iso(start)} and {to_iso(end)}: "
            "check data.start and data.end"
        )
    # One chunk each: kernels read columns as arrays, and chunks would be copied at each use.
    trades, quotes, book = (
        pl.concat(frames, rechunk=True) for frames in zip(*(d.streams() for d in days), strict=True)
    )
    # A day may count the gap before its first event itself: where the chain of ids breaks there.
    gaps = np.unique(np.concatenate([day.gaps for day in days] + [_gaps_between(days, gap_s)]))
    return Ticks(
        trades=check(trades, TRADES, where="trades"),
        quotes=check(quotes, QUOTES, where="quotes"),
        book=check(book, book_columns(days[0].n_levels()), where="book"),
        start=start,
        end=end,
        gaps=gaps.astype(np.int64),
        notes=_join_notes([day.notes for day in days]) | {"gaps": len(gaps)},
    )


def cut_ticks(ticks: Ticks, start: int, end: int) -> Ticks:
    """The rows with start <= ts_recv < end, without copying; notes stay those of the whole."""
    trades, quotes, book = (_slice(stream, start, end) for stream in ticks.streams())
    return Ticks(
        trades=trades,
        quotes=quotes,
        book=book,
        start=max(start, ticks.start),
        end=min(end, ticks.end),
        gaps=ticks.gaps[(ticks.gaps >= start) & (ticks.gaps < end)],
        notes=ticks.notes,
    )


def is_gap(last_event: int, next_event: int, gap_s: float) -> bool:
    """Whether the silence between two events (ns) starts a new segment: docs/definitions.md 5.9."""
    return next_event - last_event > gap_s * NS_PER_S


def after_gaps(ts: np.ndarray, gap_s: float) -> np.ndarray:
    """Those of the ascending times `ts` (ns) that follow a silence longer than `gap_s`."""
    return ts[1:][np.diff(ts) > gap_s * NS_PER_S]


def parted_by_gap(day: Ticks, following: Ticks, gap_s: float) -> bool:
    """Whether the silence between the last event of a day and the first of the next is a gap."""
    last, first = day.last_event(), following.first_event()
    return last is not None and first is not None and is_gap(last, first, gap_s)


def _slice(stream: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    first, stop = (int(stream["ts_recv"].search_sorted(t, side="left")) for t in (start, end))
    # A range that ends before it starts has no rows; a slice has no negative length.
    return stream.slice(first, max(stop - first, 0))


def _gaps_between(days: list[Ticks], gap_s: float) -> np.ndarray:
    # A day without any event is part of a gap, not an end of it.
    filled = [day for day in days if day.first_event() is not None]
    after = [b.first_event() for a, b in itertools.pairwise(filled) if parted_by_gap(a, b, gap_s)]
    return np.array(after, np.int64)


def _join_notes(notes: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for day in notes:
        for name, value in day.items():
            joined[name] = joined.get(name, 0) + value if isinstance(value, int) else value
    # A share does not add up; it is made anew from the counts that do.
    if joined.get("trades") and "unknown_side" in joined:
        joined["unknown_side_share"] = joined["unknown_side"] / joined["trades"]
    return joined
