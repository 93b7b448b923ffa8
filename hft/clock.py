"""Times are int64 nanoseconds since 1970, UTC: their units, and the way to and from ISO text and
days.
"""

from __future__ import annotations

import datetime as dt

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_HOUR = 3600 * NS_PER_S
NS_PER_DAY = 24 * NS_PER_HOUR
EPOCH = dt.date(1970, 1, 1)


def to_ns(text: str) -> int:
    """Nanoseconds since 1970 of an ISO date or time, UTC where it names no zone."""
    moment = dt.datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    # A datetime holds microseconds, and their count is exact in float64 until the year 2255.
    # Seconds as a float (`timestamp()`) would be off by up to 119 ns today.
    return round(since / dt.timedelta(microseconds=1)) * 1000


def to_iso(ns: int) -> str:
    """ISO time in UTC with a final Z, to the microsecond."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=int(ns) // 1000)).isoformat() + "Z"


def day_of(ns: int) -> dt.date:
    return EPOCH + dt.timedelta(days=ns // NS_PER_DAY)


def day_start(day: dt.date) -> int:
    return (day - EPOCH).days * NS_PER_DAY
