"""`data=recorder`: reads raw websocket lines of Binance USD-M, plain or gz: trades, quotes and
book.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MS, NS_PER_S, day_of, day_start, to_iso, to_ns
from hft.market.data import DataSpec
from hft.market.data._book import flag_broken_chain, rebuild_book
from hft.market.data._clean import (
    break_times,
    day_ticks,
    drop,
    drop_late,
    flag_missing_ids,
    min_delay,
    order,
    repair_clock,
    rise,
)
from hft.market.data._files import DataPath, case_free, find_files, names, range_identity, stamp
from hft.market.data._recording import (
    Recording,
    first_snapshot,
    first_time,
    last_time,
    read_recording,
)
from hft.market.ticks import DataError, Ticks

ONE_DAY = dt.timedelta(days=1)
MAX_SHIFT_NS = NS_PER_HOUR  # a clock further behind has no offset but a wrong time stamp


class Recorder(DataSpec):
    kind: Literal["recorder"]
    path: DataPath = Field(
        description="recording: a file, a glob, or a folder, "
        "of which the files that name the symbol are read"
    )
    feed_latency_floor_ms: float = Field(
        ge=0,
        le=1000,
        description="least delay from exchange to recorder; "
        "a recorder clock behind it is shifted (ms)",
    )
    max_delay_s: float = Field(
        gt=0,
        le=3000,
        description="a row later than the median delay by more than this is dropped (s)",
    )
    book_levels: int = Field(
        ge=0, le=1000, description="levels a side of the rebuilt book (0: none, depth lines unread)"
    )

    def days(self) -> list[dt.date]:
        shift, spans = self.calibrate()["clock_shift_ns"], self._spans()
        first, last = self.clip(
            day_of(spans[0][1] + shift), day_of(last_time(stamp(spans[-1][0])) + shift)
        )
        found: set[dt.date] = set()
        for path, begin, following in spans:
            # Days between two files that nothing was recorded on are not offered.
            near = following is not None and following - begin <= NS_PER_DAY
            end = following if following is not None and near else last_time(stamp(path))
            day = day_of(begin + shift)
            while day <= day_of(end + shift):
                found.add(day)
                day += ONE_DAY
        return sorted(day for day in found if first <= day <= last)

    def calibrate(self) -> dict[str, int]:
        """Shift of the recorder's clock, measured on the first (local) day of start..end:
        docs/definitions.md 5.2.
        """
        # Only a clock that is behind can be told: one that is ahead looks like a longer delay.
        shift = max(0, self._floor() - min(self._first_delays(), default=self._floor()))
        if shift > MAX_SHIFT_NS:
            raise DataError(
                f"data.path: {self.path}: local times are up to {shift / NS_PER_S:.0f} s behind "
                f"the exchange's, a clock offset is at most {MAX_SHIFT_NS // NS_PER_S} s: "
                "look for a line with a wrong time"
            )
        return {"clock_shift_ns": shift}

    def content(self, day: dt.date) -> Any:
        calibration = self.calibrate()
        window, older = self._files(day)
        return range_identity(
            self.bounds(day), self._open_ends(window), older + window, **calibration
        )

    def read_day(self, day: dt.date, calibration: dict[str, int]) -> Ticks:
        shift = calibration["clock_shift_ns"]
        window, older = self._files(day)
        self._refuse_overlap(window, day)
        recordings = [self._read(path, day) for path in window]
        # max_hole=0: a live stream has every id, unlike an archive (docs/formats.md 1 and 2), so a
        # hole is lost data.
        trades = flag_missing_ids(
            self._order([r.trades for r in recordings], "id", shift), "id", "id", max_hole=0
        )
        quotes = self._order([r.quotes for r in recordings], "seq", shift)
        torn = pl.concat([r.torn for r in recordings]).with_columns(
            ts_recv=pl.col("ts_recv") + shift
        )
        streams = {
            "trades": rise(trades),
            "quotes": rise(drop(quotes, pl.col("bid") >= pl.col("ask"), "crossed")),
        }
        breaks = [break_times(streams["trades"])]
        if self.book_levels:
            # The book needs every diff since a snapshot, which may lie days back.
            earlier = [self._read(path, day) for path in older]
            streams["book"], broken = self._book(earlier + recordings, shift, day)
            breaks.append(broken)
        start, end = self.bounds(day)
        return day_ticks(
            streams,
            bounds=(start, end),
            open_ends=self._open_ends(window),
            breaks=np.concatenate(breaks),
            gap_s=self.gap_s,
            n_levels=self.book_levels,
            where=names(window),
            notes={
                "clock_shift_ms": shift / NS_PER_MS,
                "lines_torn": torn.filter(
                    pl.col("ts_recv").is_between(start, end, closed="left")
                ).height,
            },
        )

    def _first_delays(self) -> list[int]:
        """Least delay of each file that holds the first local day with events at or after
        `start`.
        """
        start = -(2**63) if self.start == "first" else to_ns(self.start)
        for _, begin, following in self._spans():
            begin = max(begin, start)
            if following is None or following > begin:
                # A day of local time: the shift that would make it UTC is what is being measured.
                day = day_of(begin)
                # Of that day alone, so that loading more days leaves the shift, and every day's
                # key, as it was.
                inside = pl.col("ts_recv").is_between(
                    begin, day_start(day) + NS_PER_DAY, closed="left"
                )
                found = [self._read(path, day).streams() for path in self._files(day)[0]]
                delays = [min_delay([s.filter(inside) for s in streams]) for streams in found]
                if any(delay is not None for delay in delays):
                    return [delay for delay in delays if delay is not None]
        return []

    def _order(self, frames: list[pl.DataFrame], key: str, shift: int) -> pl.DataFrame:
        # Before the running maximum of `rise`, which one late row would lift all others to.
        timely = drop_late(pl.concat(frames), round(self.max_delay_s * NS_PER_S))
        return order(repair_clock(timely, shift, self._floor()), key)

    def _book(
        self, recordings: list[Recording], shift: int, day: dt.date
    ) -> tuple[pl.DataFrame, np.ndarray]:
        snapshots = [
            # As repair_clock does with diffs, among which the snapshot must keep its place.
            replace(s, ts_recv=max(s.ts_recv + shift, s.ts_exch + self._floor()))
            for r in recordings
            for s in r.snapshots
        ]
        if not snapshots:
            raise DataError(
                f"data.path: no REST snapshot in the recording up to {day}, and a book cannot "
                "be rebuilt from diffs alone: set data.start after one, or data.book_levels=0"
            )
        # Only duplicates leave: a late diff gives no row, but the book would be wrong without it.
        ordered = rise(self._order([r.diffs for r in recordings], "last_id", shift))
        diffs = flag_broken_chain(ordered.filter((pl.col("reason") != "duplicate").fill_null(True)))
        book = rebuild_book(diffs, snapshots, self.book_levels)
        return rise(drop(book, pl.col("bid_0") >= pl.col("ask_0"), "crossed")), break_times(diffs)

    def _floor(self) -> int:
        return round(self.feed_latency_floor_ms * NS_PER_MS)

    def _read(self, path: Path, day: dt.date) -> Recording:
        return read_recording(stamp(path), self.symbol, *_reach(day), depth=self.book_levels > 0)

    def _spans(self) -> list[tuple[Path, int, int | None]]:
        """Files in time order, with their first local time and that of the next file."""
        files = find_files(self.path, f"*{case_free(self.symbol)}*")
        # By the time inside: names need not sort in time order.
        begins = sorted((first_time(stamp(f)), f) for f in files)
        following = [*(begin for begin, _ in begins[1:]), None]
        return [
            (file, begin, after) for (begin, file), after in zip(begins, following, strict=True)
        ]

    def _refuse_overlap(self, window: list[Path], day: dt.date) -> None:
        for file, _, following in self._spans():
            if following is None or file not in window:
                continue
            streams = [s for s in self._read(file, day).streams() if s.height]
            last = max((int(s["ts_recv"].to_numpy().max()) for s in streams), default=following)
            if last > following + round(self.max_delay_s * NS_PER_S):
                raise DataError(
                    f"data.path: {file} runs on to {to_iso(last)}, past the beginning of the next "
                    f"file, {to_iso(following)}: give the files of one recorder, each of them once"
                )

    def _open_ends(self, window: list[Path]) -> tuple[bool, bool]:
        spans = self._spans()
        first, last = spans[0][0], spans[-1][0]
        return self.start == "first" and first in window, self.end == "last" and last in window

    def _files(self, day: dt.date) -> tuple[list[Path], list[Path]]:
        """Files that may hold rows of the day, and the files before them, back to the snapshot that
        the day's book starts from.
        """
        begin, end = _reach(day)
        spans = self._spans()
        window = [
            f for f, first, after in spans if first < end and (after is None or after >= begin)
        ]
        older: list[Path] = []
        if self.book_levels:
            before = [f for f, _, after in spans if after is not None and after < begin]
            # The snapshot must lie before the day, or its first rows would have no book.
            while before and not first_snapshot(stamp((older + window)[0])) < begin:
                older.insert(0, before.pop())
        return window, older


def _reach(day: dt.date) -> tuple[int, int]:
    """The range of local times that can hold rows of the UTC day: clock shift and delays are
    shorter than its margins, and drop_late needs whole hours.
    """
    return day_start(day) - MAX_SHIFT_NS - NS_PER_HOUR, day_start(day) + NS_PER_DAY + NS_PER_HOUR
