"""`data=binance`: reads daily zips of data.binance.vision (spot or USD-M): trades and best quotes.

The archive has no receive times: ts_recv = ts_exch + feed latency (docs/definitions.md 5.1). So the
last milliseconds of a file belong to the next UTC day; rows that a file has of a neighbouring day
are put where they belong.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from hft.clock import NS_PER_MS
from hft.market.data import DataSpec
from hft.market.data._archive import read_archive, verify_checksum
from hft.market.data._clean import break_times, day_ticks, drop, flag_missing_ids, order, rise
from hft.market.data._files import DataPath, find_files, names, range_identity, stamp
from hft.market.ticks import DataError, Ticks

# Futures archives leave out prints that are no market trades, one or a few ids at a time and many
# times a day (docs/formats.md 2); a longer hole is lost data and a gap.
MAX_ID_HOLE = 100
ONE_DAY = dt.timedelta(days=1)


class Binance(DataSpec):
    kind: Literal["binance"]
    path: DataPath = Field(
        description="daily zips: the folder that holds them, one above it (vendor's layout), "
        "a glob, or one file"
    )
    trades: Literal["trades", "aggTrades"] = Field(description="kind of trade files")
    quotes: Literal["bookTicker", "none"] = Field(
        description="kind of quote files (none: trades only)"
    )
    feed_latency_ms: float = Field(
        ge=0, le=60_000, description="assumed delay from exchange to us (ms)"
    )
    require_checksum: bool = Field(description="whether a zip without its CHECKSUM file is refused")

    def days(self) -> list[dt.date]:
        found = self._by_day(self.trades)
        first, last = self.clip(min(found), max(found))
        return sorted(day for day in found if first <= day <= last)

    def content(self, day: dt.date) -> Any:
        files = [file for data_type in self._types() for file in self._files(data_type, day)]
        # Here too: a day that the cache holds is not trusted without its CHECKSUM either.
        for file in files:
            verify_checksum(file, required=self.require_checksum)
        return range_identity(self.bounds(day), self._open_ends(day), files)

    def read_day(self, day: dt.date, calibration: dict[str, Any]) -> Ticks:
        streams = {}
        for name, data_type, key in (("trades", self.trades, "id"), ("quotes", self.quotes, "seq")):
            if data_type != "none":
                streams[name] = self._read(data_type, day, key)
        # An aggregate stands for a run of trade ids; its own ids are renumbered now and then.
        first, last = ("id", "id") if self.trades == "trades" else ("first_id", "last_id")
        trades = flag_missing_ids(streams["trades"], first, last, max_hole=MAX_ID_HOLE)
        streams["trades"] = trades
        return day_ticks(
            streams,
            bounds=self.bounds(day),
            open_ends=self._open_ends(day),
            breaks=break_times(trades),
            gap_s=self.gap_s,
            n_levels=0,
            where=names([self._by_day(t)[day] for t in self._types()]),
            notes={"clock_shift_ms": 0.0, "feed_latency_ms": self.feed_latency_ms},
        )

    def _read(self, data_type: str, day: dt.date, key: str) -> pl.DataFrame:
        """The stream of the day and of both days beside it, in exchange order."""
        files = self._files(data_type, day)
        # content may have been asked in another process (workers) or never (load_ticks).
        for file in files:
            verify_checksum(file, required=self.require_checksum)
        frame = pl.concat([read_archive(stamp(f), data_type) for f in files])
        # Rows cross midnight with the latency, and a vendor's file may hold some of another day.
        latency = round(self.feed_latency_ms * NS_PER_MS)
        # docs/definitions.md 5.1: the archive has no receive times.
        frame = order(frame.with_columns(ts_recv=pl.col("ts_exch") + latency), key)
        return rise(
            drop(frame, pl.col("bid") >= pl.col("ask"), "crossed") if key == "seq" else frame
        )

    def _types(self) -> list[str]:
        return [self.trades] + [self.quotes] * (self.quotes != "none")

    def _files(self, data_type: str, day: dt.date) -> list[Path]:
        found = self._by_day(data_type)
        if day not in found:
            raise DataError(
                f"data.path: {self.symbol}-{data_type}-{day}.zip is missing, and {self.trades} of "
                "that day are there: fetch it, narrow data.start and data.end, or set "
                "data.quotes=none"
            )
        return [found[d] for d in (day - ONE_DAY, day, day + ONE_DAY) if d in found]

    def _open_ends(self, day: dt.date) -> tuple[bool, bool]:
        found = self._by_day(self.trades)
        return self.start == "first" and day == min(found), self.end == "last" and day == max(found)

    def _by_day(self, data_type: str) -> dict[dt.date, Path]:
        pattern = re.compile(rf"{re.escape(self.symbol)}-{data_type}-(\d{{4}}-\d\d-\d\d)\.zip")
        found: dict[dt.date, Path] = {}
        for file in find_files(self.path, f"**/{self.symbol}-*.zip"):
            match = pattern.fullmatch(file.name)
            # Spot and USD-M have the same file names in different folders (docs/formats.md 3).
            if match and (other := found.setdefault(dt.date.fromisoformat(match[1]), file)) != file:
                raise DataError(
                    f"data.path: {other} and {file} are the same day: "
                    "narrow data.path to one market"
                )
        if not found:
            is_trades = data_type == self.trades
            remedy = "data.trades" if is_trades else "fetch the files, or set data.quotes=none"
            raise DataError(
                f"data.path: no daily file {self.symbol}-{data_type}-<date>.zip in {self.path}: "
                f"check data.symbol and {remedy}"
            )
        return found
