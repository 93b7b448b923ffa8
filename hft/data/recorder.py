"""`data=recorder`: raw websocket lines of Binance USD-M (plain or gz) in, Ticks with trades, quotes and book out."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.data import DataError, DataSpec, Ticks, day_of, day_start, to_iso, to_ns
from hft.data._book import flag_broken_chain, rebuild_book
from hft.data._clean import break_times, day_ticks, drop, flag_missing_ids, min_delay, order, repair_clock, rise
from hft.data._files import DataPath, case_free, find_files, names, range_identity, stamp
from hft.data._recording import Recording, first_snapshot, first_time, read_recording
from hft.schema import NS_PER_DAY, NS_PER_MS, NS_PER_S

MAX_SHIFT_NS = 3600 * NS_PER_S  # a clock further behind is no clock offset but a wrong time stamp


class Recorder(DataSpec):
    kind: Literal["recorder"]
    path: DataPath = Field(
        description="recording: a file, a glob, or a folder, of which the files that name the symbol are read"
    )
    feed_latency_floor_ms: float = Field(
        ge=0, le=1000, description="least delay from exchange to recorder; a recorder clock behind it is shifted (ms)"
    )
    max_delay_s: float = Field(gt=0, description="a row later than the median delay by more than this is dropped (s)")
    book_levels: int = Field(
        ge=0, le=1000, description="levels a side of the rebuilt book (0: none, depth lines unread)"
    )

    def days(self) -> list[dt.date]:
        shift, spans = self.calibrate()["clock_shift_ns"], self._spans()
        first, last = self.clip(day_of(spans[0][1] + shift), day_of(self._read(spans[-1][0]).last + shift))
        found: set[dt.date] = set()
        for path, begin, following in spans:
            day, end = day_of(begin + shift), following
            if following is None or following - begin > NS_PER_DAY:
                end = self._read(path).last  # days between two files that nothing was recorded on are not offered
            while day <= day_of(end + shift):
                found.add(day)
                day += dt.timedelta(days=1)
        return sorted(day for day in found if first <= day <= last)

    def calibrate(self) -> dict[str, int]:
        """Shift of the recorder's clock, found on the first (local) day of start..end. QUANT 5.2."""
        shift = max(0, self._floor() - min(self._first_delays(), default=self._floor()))
        if shift > MAX_SHIFT_NS:
            raise DataError(
                f"data.path: {self.path}: local times are up to {shift / NS_PER_S:.0f} s behind the exchange's, "
                f"at most {MAX_SHIFT_NS // NS_PER_S} s can be a clock offset: look for a line with a wrong time"
            )
        return {"clock_shift_ns": shift}

    def content(self, day: dt.date) -> Any:
        calibration = self.calibrate()
        window, older = self._files(day, calibration["clock_shift_ns"])
        return range_identity(self.bounds(day), self._open_ends(window), older + window, **calibration)

    def read_day(self, day: dt.date, calibration: dict[str, int]) -> Ticks:
        shift = calibration["clock_shift_ns"]
        window, older = self._files(day, shift)
        self._refuse_overlap(window)
        recordings = [self._read(path) for path in window]
        trades = flag_missing_ids(self._order([r.trades for r in recordings], "id", shift), "id", "id", max_hole=0)
        quotes = self._order([r.quotes for r in recordings], "seq", shift)
        torn = pl.concat([r.torn for r in recordings]).with_columns(ts_recv=pl.col("ts_recv") + shift)
        streams = {"trades": rise(trades), "quotes": rise(drop(quotes, pl.col("bid") >= pl.col("ask"), "crossed"))}
        breaks = [break_times(streams["trades"])]
        if self.book_levels:
            earlier = [self._read(path) for path in older]
            streams["book"], broken = self._book(earlier + recordings, shift)
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
                "lines_torn": torn.filter(pl.col("ts_recv").is_between(start, end, closed="left")).height,
            },
        )

    def _first_delays(self) -> list[int]:
        """Least delay of each file that holds part of the first local day at or after `start`."""
        start = -(2**63) if self.start == "first" else to_ns(self.start)
        delays, end = [], None
        for path, begin, following in self._spans():
            if (following is not None and following <= start) or (end is not None and begin >= end):
                continue
            streams = [s.filter(pl.col("ts_recv") >= start) for s in self._read(path).streams()]
            times = [s["ts_recv"].min() for s in streams if s.height]
            if times:
                end = end or day_start(day_of(min(times))) + NS_PER_DAY
                delays.append(min_delay([s.filter(pl.col("ts_recv") < end) for s in streams]))
        return [delay for delay in delays if delay is not None]

    def _order(self, frames: list[pl.DataFrame], key: str, shift: int) -> pl.DataFrame:
        return order(repair_clock(pl.concat(frames), shift, self._floor()), key)

    def _book(self, recordings: list[Recording], shift: int) -> tuple[pl.DataFrame, np.ndarray]:
        snapshots = [
            replace(s, ts_recv=max(s.ts_recv + shift, s.ts_exch + self._floor()))
            for r in recordings
            for s in r.snapshots
        ]
        if not snapshots:
            raise DataError(
                f"data.path: no REST snapshot in the recording up to {to_iso(recordings[-1].last)}, and a book cannot "
                "be rebuilt from diffs alone: set data.start after one, or data.book_levels=0"
            )
        ordered = rise(self._order([r.diffs for r in recordings], "last_id", shift))
        diffs = flag_broken_chain(ordered.filter((pl.col("reason") != "duplicate").fill_null(True)))
        book = rebuild_book(diffs, snapshots, self.book_levels)
        return rise(drop(book, pl.col("bid_0") >= pl.col("ask_0"), "crossed")), break_times(diffs)

    def _floor(self) -> int:
        return round(self.feed_latency_floor_ms * NS_PER_MS)

    def _read(self, path: Path) -> Recording:
        return read_recording(stamp(path), self.symbol, round(self.max_delay_s * NS_PER_S), depth=self.book_levels > 0)

    def _spans(self) -> list[tuple[Path, int, int | None]]:
        """Files in time order with their first local time and that of the file after."""
        files = find_files(self.path, f"*{case_free(self.symbol)}*")
        begins = sorted((first_time(stamp(f)), f) for f in files)
        following = [begin for begin, _ in begins[1:]] + [None]
        return [(file, begin, after) for (begin, file), after in zip(begins, following, strict=True)]

    def _refuse_overlap(self, window: list[Path]) -> None:
        for file, _, following in self._spans():
            if file in window and following is not None and self._read(file).last > following + self._margin():
                raise DataError(
                    f"data.path: {file} runs on to {to_iso(self._read(file).last)}, past the beginning of the "
                    f"file after it, {to_iso(following)}: give the files of one recorder, and each of them once"
                )

    def _margin(self) -> int:
        """How far apart in local time two neighbours in exchange order may be."""
        return round(self.max_delay_s * NS_PER_S) + NS_PER_S

    def _open_ends(self, window: list[Path]) -> tuple[bool, bool]:
        spans = self._spans()
        return self.start == "first" and spans[0][0] in window, self.end == "last" and spans[-1][0] in window

    def _files(self, day: dt.date, shift: int) -> tuple[list[Path], list[Path]]:
        """Files that may hold rows of the day, and those before them back to the snapshot that its book starts from."""
        begin, end = day_start(day) - shift - self._margin(), day_start(day) + NS_PER_DAY - shift
        spans = self._spans()
        window = [f for f, first, after in spans if first < end and (after is None or after >= begin)]
        older: list[Path] = []
        if self.book_levels:
            before = [f for f, _, after in spans if after is not None and after < begin]
            while before and not first_snapshot(stamp((older + window)[0])) < begin:
                older.insert(0, before.pop())
        return window, older
