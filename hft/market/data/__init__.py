"""Vendor files or a simulator in, Ticks out: trades, quotes and book in one clock, cleaned, cut
into UTC days.

To add a source: one module here with a DataSpec subclass, `conf/data/<kind>.yaml`, one test. The
conformance suite covers it at once.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field, model_validator

from hft.clock import NS_PER_DAY, NS_PER_S, day_of, day_start, to_iso, to_ns
from hft.schema import QUOTES, TRADES, book_columns, check
from hft.spec import Kind, UserError


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
        return (self.book.width - 3) // 4

    def first_event(self) -> int | None:
        """Earliest ts_recv of any stream; None without events."""
        return min((int(s["ts_recv"][0]) for s in self.streams() if s.height), default=None)

    def last_event(self) -> int | None:
        return max((int(s["ts_recv"][-1]) for s in self.streams() if s.height), default=None)


def _iso_or(word: str) -> AfterValidator:
    def validate(text: str) -> str:
        if text != word:
            try:
                to_ns(text)
            except ValueError:
                raise ValueError(
                    f"must be {word!r} or an ISO date or time in UTC such as 2024-07-18T23:57, got {text!r}"
                ) from None
        return text

    return AfterValidator(validate)


class DataSpec(Kind):
    symbol: str = Field(
        pattern=r"^[A-Z0-9_]+$", description="instrument as the source spells it, such as BTCUSDT"
    )
    start: Annotated[str, _iso_or("first")] = Field(
        description="'first' event, or ISO date or time (UTC) to start at"
    )
    end: Annotated[str, _iso_or("last")] = Field(
        description="'last' event, or ISO date or time (UTC), exclusive"
    )
    gap_s: float = Field(gt=0, description="silence of all streams that starts a new segment (s)")

    @model_validator(mode="after")
    def _start_before_end(self) -> DataSpec:
        if self.start != "first" and self.end != "last" and to_ns(self.start) >= to_ns(self.end):
            raise ValueError(f"start must be before end, got start {self.start} and end {self.end}")
        return self

    def source(self) -> str:
        """What market the rows are of: rows of one source and one time are the same rows, whoever
        recorded them.
        """
        return self.symbol

    def days(self) -> list[dt.date]:
        """UTC days (by ts_recv) with data inside start..end, ascending; DataError where there are
        none.
        """
        raise NotImplementedError

    def calibrate(self) -> dict[str, Any]:
        """Constants of the source found on the first day loaded, JSON-able; part of every day's
        cache key.
        """
        return {}

    def content(self, day: dt.date) -> Any:
        """JSON-able identity of what read_day(day) depends on besides this spec: file hashes,
        calibration, range.
        """
        raise NotImplementedError

    def read_day(self, day: dt.date, calibration: dict[str, Any]) -> Ticks:
        """The cleaned ticks of the part of the UTC day that lies inside start..end, cut by
        ts_recv.
        """
        raise NotImplementedError

    def bounds(self, day: dt.date) -> tuple[int, int]:
        """The part [from, to) ns of the UTC day that lies inside start..end."""
        begin = day_start(day) if self.start == "first" else max(day_start(day), to_ns(self.start))
        end = day_start(day) + NS_PER_DAY
        return begin, end if self.end == "last" else min(end, to_ns(self.end))

    def clip(self, first: dt.date, last: dt.date) -> tuple[dt.date, dt.date]:
        """The first and last day of start..end; DataError when one lies outside the data's days
        first..last.
        """
        begin = first if self.start == "first" else day_of(to_ns(self.start))
        end = last if self.end == "last" else day_of(to_ns(self.end) - 1)
        for name, value, day in (("start", self.start, begin), ("end", self.end, end)):
            if not first <= day <= last:
                raise DataError(
                    f"data.{name}: {value} lies outside the data, whose days are {first} to {last} (UTC): "
                    f"set data.{name} within them, or data.path to more files"
                )
        return begin, end


def load_ticks(spec: DataSpec) -> Ticks:
    """All days of `spec`, joined, each read afresh."""
    calibration = spec.calibrate()
    return join_ticks([spec.read_day(day, calibration) for day in spec.days()], spec.gap_s)


def join_ticks(days: list[Ticks], gap_s: float) -> Ticks:
    """Ticks of consecutive days as one; adds the gaps that lie between days. DataError when no day
    has a trade.
    """
    assert all(a.end <= b.start for a, b in itertools.pairwise(days)), (
        "days must be in order and apart"
    )
    start, end = days[0].start, days[-1].end
    if not any(day.trades.height for day in days):
        raise DataError(
            f"data: no trades between {to_iso(start)} and {to_iso(end)}: check data.start and data.end"
        )
    trades, quotes, book = (
        pl.concat(frames, rechunk=True) for frames in zip(*(d.streams() for d in days), strict=True)
    )
    gaps = np.unique(
        np.concatenate([day.gaps for day in days] + [_gaps_between(days, gap_s)])
    ).astype(np.int64)
    return Ticks(
        trades=check(trades, TRADES, where="trades"),
        quotes=check(quotes, QUOTES, where="quotes"),
        book=check(book, book_columns(days[0].n_levels()), where="book"),
        start=start,
        end=end,
        gaps=gaps,
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


def _slice(stream: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    first, stop = (int(stream["ts_recv"].search_sorted(t, side="left")) for t in (start, end))
    return stream.slice(first, max(stop - first, 0))


def _gaps_between(days: list[Ticks], gap_s: float) -> np.ndarray:
    filled = [day for day in days if day.first_event() is not None]
    return np.array(
        [
            b.first_event()
            for a, b in itertools.pairwise(filled)
            if is_gap(a.last_event(), b.first_event(), gap_s)
        ],
        np.int64,
    )


def is_gap(last_event: Any, next_event: Any, gap_s: float) -> Any:
    """Whether the silence between two events (ns, or arrays of such) starts a new segment. QUANT
    5.9.
    """
    return next_event - last_event > gap_s * NS_PER_S


def _join_notes(notes: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for day in notes:
        for name, value in day.items():
            joined[name] = joined.get(name, 0) + value if isinstance(value, int) else value
    if joined.get("trades") and "unknown_side" in joined:
        joined["unknown_side_share"] = joined["unknown_side"] / joined["trades"]
    return joined
