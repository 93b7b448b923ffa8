"""Times as int64 nanoseconds UTC, read from ISO text and printed as it."""

from __future__ import annotations

from hft.clock import day_of, day_start, to_iso, to_ns


def test_times_read_and_print_as_utc():
    assert to_ns("2024-07-18") == day_start(day_of(to_ns("2024-07-18T23:59:59.999999")))
    assert to_ns("2024-07-18T02:00+02:00") == to_ns("2024-07-18")
    assert to_iso(to_ns("2024-07-18T23:57:02.5")) == "2024-07-18T23:57:02.500000Z"
