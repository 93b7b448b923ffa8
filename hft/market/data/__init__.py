"""Sources of market data: a DataSpec reads vendor files, or simulates, one UTC day of clean Ticks
at a time.

To add a source: one module here with a DataSpec subclass, `conf/data/<kind>.yaml`, one test. The
conformance suite covers it at once.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from hft.clock import NS_PER_DAY, day_of, day_start, to_ns
from hft.market.ticks import DataError, Ticks, join_ticks
from hft.spec import Kind, Role


def _iso_or(word: str) -> AfterValidator:
    def validate(text: str) -> str:
        if text != word:
            try:
                to_ns(text)
            except ValueError:
                raise ValueError(
                    f"must be {word!r} or an ISO date or time in UTC such as 2024-07-18T23:57, "
                    f"got {text!r}"
                ) from None
        return text

    return AfterValidator(validate)


class DataSpec(Kind):
    symbol: str = Field(
        pattern=r"^[A-Z0-9_]+$", description="instrument as the source spells it, such as BTCUSDT"
    )
    start: Annotated[str, _iso_or("first"), Role.EXTENT] = Field(
        description="'first' event, or ISO date or time (UTC) to start at"
    )
    end: Annotated[str, _iso_or("last"), Role.EXTENT] = Field(
        description="'last' event, or ISO date or time (UTC), exclusive"
    )
    gap_s: float = Field(gt=0, description="silence of all streams that starts a new segment (s)")

    @model_validator(mode="after")
    def _start_before_end(self) -> DataSpec:
        # What "first" and "last" mean is known only once the files are read.
        if self.start != "first" and self.end != "last" and to_ns(self.start) >= to_ns(self.end):
            raise ValueError(f"start must be before end, got start {self.start} and end {self.end}")
        return self

    def source(self) -> str:
        """Name of the market. Two specs of one source have the same rows at the same time, whoever
        recorded them.
        """
        return self.symbol

    def days(self) -> list[dt.date]:
        """UTC days (by ts_recv) with data inside start..end, ascending. DataError where there is
        none.
        """
        raise NotImplementedError

    def calibrate(self) -> dict[str, Any]:
        """Constants of the source, measured on the first day loaded. They are JSON-able and part of
        every day's cache key.
        """
        return {}

    def content(self, day: dt.date) -> Any:
        """What read_day(day) depends on besides this spec, JSON-able: file hashes, calibration,
        range. It identifies the data in the day's cache key.
        """
        raise NotImplementedError

    def read_day(self, day: dt.date, calibration: dict[str, Any]) -> Ticks:
        """The clean ticks of the UTC day (by ts_recv), as far as it lies inside start..end."""
        raise NotImplementedError

    def bounds(self, day: dt.date) -> tuple[int, int]:
        """The part [from, to) ns of the UTC day that lies inside start..end."""
        begin = day_start(day) if self.start == "first" else max(day_start(day), to_ns(self.start))
        end = day_start(day) + NS_PER_DAY
        return begin, end if self.end == "last" else min(end, to_ns(self.end))

    def clip(self, first: dt.date, last: dt.date) -> tuple[dt.date, dt.date]:
        """The first and last day of start..end. DataError when one lies outside first..last, the
        days of the data.
        """
        begin = first if self.start == "first" else day_of(to_ns(self.start))
        # The end is exclusive: midnight is the end of the day before.
        end = last if self.end == "last" else day_of(to_ns(self.end) - 1)
        for name, value, day in (("start", self.start, begin), ("end", self.end, end)):
            if not first <= day <= last:
                raise DataError(
                    f"data.{name}: {value} lies outside the data, whose days are {first} to {last} "
                    f"(UTC): set data.{name} within them, or data.path to more files"
                )
        return begin, end


def load_ticks(spec: DataSpec) -> Ticks:
    """All days of `spec`, joined, each read afresh."""
    calibration = spec.calibrate()
    return join_ticks([spec.read_day(day, calibration) for day in spec.days()], spec.gap_s)
