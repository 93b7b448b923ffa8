"""Trades in, BARS out: one row per bar, with the best quotes as they were known when it closed.

UTC midnight closes whatever is open, so that a day's bars depend on that day alone (adaptive kinds:
and on the hourly totals before it), and days can be built apart and joined. To add a kind: one
module here with a BarSpec subclass that says where bars close, `conf/bars/<kind>.yaml`, one test.
The conformance suite covers it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_DAY, to_iso
from hft.market.bars._kernel import COUNTS, HOUR_NS, RELATIVE_SLACK, VALUES, cut, interval_stops
from hft.market.ticks import Ticks
from hft.schema import BARS, check
from hft.spec import Kind, UserError

HOURLY = {"hour": pl.Int64, "volume": pl.Float64, "turnover": pl.Float64}
HOURS_PER_DAY = 24
QUOTE_STATE = ("bid", "ask", "bid_qty", "ask_qty")


class BarError(UserError):
    """Ticks from which no bars can be made: what they hold, and the remedy."""


@dataclass(frozen=True)
class Day:
    """Trades of one UTC day, known up to `end`, which is the next midnight when the day is
    complete.

    `totals` are the hourly totals of this day and all before it; no rows unless the kind looks
    back.
    """

    start: int
    end: int
    ts_recv: np.ndarray
    price: np.ndarray
    qty: np.ndarray
    side: np.ndarray
    totals: pl.DataFrame

    @property
    def midnight(self) -> int:
        return self.start + NS_PER_DAY


class BarSpec(Kind):
    """Where bars close: at `stops`, and where the sum of qty or turnover reaches `thresholds`.

    `size` is the threshold of every kind, in the kind's unit. `history_hours`, hours with trades
    that must lie before a bar's opening hour, is a field of the adaptive kinds and 0 for the
    others.
    """

    unit: ClassVar[str]
    measure: ClassVar[str] = "volume"
    history_hours: ClassVar[int]

    size: float = Field(gt=0, description="what a bar holds at least, in the unit of the kind")

    def stops(self, day: Day) -> np.ndarray:
        """Increasing trade indexes at which a bar ends whatever it holds; the last one is the
        number of trades.
        """
        return np.array([len(day.ts_recv)])

    def thresholds(self, day: Day) -> np.ndarray:
        """`measure` ("volume" or "turnover") that closes a bar opened in each hour of the day; inf
        for none, nan for hours in which no bar opens.
        """
        return np.full(HOURS_PER_DAY, np.inf)

    def is_closed(self, day: Day, last: dict[str, float]) -> bool:
        """Whether the day's last bar met its condition, or was still open when the trades ended."""
        threshold = self.thresholds(day)[(last["ts_open"] - day.start) // HOUR_NS]
        return last[self.measure] >= threshold * (1 - RELATIVE_SLACK)

    def times(self, day: Day, ts_open: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ts_open and ts of bars, from the times of their first and last trades."""
        return ts_open, ts

    def available(self, ticks: Ticks) -> float:
        """How much of what `size` measures the ticks hold; adds up over days."""
        raise NotImplementedError

    def shortage(self, available: float) -> str:
        """Why `available` makes no bar, and a size that would make about a hundred."""
        return (
            f"bars.size={self.size:g} {self.unit} gives no bar: the data hold {available:g} {self.unit} in all; "
            f"try bars.size={available / 100:.2g}"
        )


class FixedSize(BarSpec):
    """A kind whose threshold is `size` itself."""

    history_hours: ClassVar[int] = 0


def build_bars(
    ticks: Ticks, spec: BarSpec, history: pl.DataFrame | None = None, *, allow_empty: bool = False
) -> pl.DataFrame:
    """BARS of one or more UTC days. `history` are the hourly totals before the first of them;
    adaptive kinds read its last `spec.history_hours` rows. The open remainder at the end of an
    incomplete last day is no bar.

    Raises BarError when the threshold is never met; with `allow_empty`, for a day that is part of a
    range (a burn-in day, a minute before midnight), returns what bars there are and leaves the
    judgement to `require_bars`.
    """
    if not ticks.trades.height and not allow_empty:
        raise BarError(
            f"bars: no trades from {to_iso(ticks.start)} to {to_iso(ticks.end)}; choose another data.start or end"
        )
    totals = _totals_up_to(ticks, history) if spec.history_hours else pl.DataFrame(schema=HOURLY)
    frames = [_day_frame(day, spec, ticks) for day in _split_days(ticks, totals)] or [
        pl.DataFrame(schema=BARS)
    ]
    bars = check(
        frames[0] if len(frames) == 1 else _number(pl.concat(frames, rechunk=True)),
        BARS,
        where="bars",
    )
    if not allow_empty and bars["partial"].all():
        raise BarError(spec.shortage(spec.available(ticks)))
    return bars


def require_bars(bars: pl.DataFrame, spec: BarSpec, available: float) -> pl.DataFrame:
    """`bars` itself, when at least one of them met its threshold (midnight alone closed none of the
    others).

    `available` is the sum of `spec.available(ticks)` over the days of the range.
    """
    if bars["partial"].all():
        raise BarError(spec.shortage(available))
    return bars


def hourly_totals(ticks: Ticks) -> pl.DataFrame:
    """hour (ns of its start), volume, turnover; hours without trades are absent."""
    ts_recv, price, qty, side = _columns(ticks.trades, "ts_recv", "price", "qty", "side")
    stops = interval_stops(ts_recv, 0, HOUR_NS)
    counts, values = cut(
        ts_recv, price, qty, side, stops, np.full(HOURS_PER_DAY, np.inf), in_quote=False
    )
    columns = {"hour": counts[0] // HOUR_NS * HOUR_NS, "volume": values[5], "turnover": values[6]}
    return pl.DataFrame(columns, schema=HOURLY)


def join_bars(frames: Sequence[pl.DataFrame], gap_between: Sequence[bool]) -> pl.DataFrame:
    """BARS of consecutive days as one range. `gap_between[i]`: a gap lies after the last bar of
    frame i that frame i+1 does not count itself (the pause between the two days, or one after the
    day's last trade).
    """
    parts, offset = [], 0
    for frame, gap in zip(frames, [False, *gap_between], strict=True):
        offset += bool(gap)
        parts.append(frame.with_columns(pl.col("segment") + offset))
        offset += frame["segment"][-1] if frame.height else 0
    joined = pl.concat(parts, rechunk=True)
    return check(_number(joined), BARS, where="bars")


def trade_bounds(ts_recv: np.ndarray, bars: pl.DataFrame) -> np.ndarray:
    """int64[n_bars + 1]: trades bounds[i]:bounds[i+1] belong to bar i. Counting, not times, splits
    tied trades.
    """
    first = np.searchsorted(ts_recv, bars["ts_open"].to_numpy()[:1])
    bounds = (
        np.concatenate([first if bars.height else [0], bars["n_trades"].to_numpy()])
        .astype(np.int64)
        .cumsum()
    )
    assert bounds[-1] <= len(ts_recv), "these are not the trades of these bars"
    return bounds


def quote_bounds(ts_recv: np.ndarray, bars: pl.DataFrame) -> np.ndarray:
    """int64[n_bars + 1]: quotes bounds[i]:bounds[i+1] came in from the close of bar i-1 (the first
    bar: from its UTC midnight) until strictly before the close of bar i, since at equal times the
    closing trade comes first.
    """
    begin = (
        bars["ts_open"].to_numpy()[:1] // NS_PER_DAY * NS_PER_DAY
        if bars.height
        else np.zeros(1, np.int64)
    )
    return np.searchsorted(ts_recv, np.concatenate([begin, bars["ts"].to_numpy()])).astype(np.int64)


def _split_days(ticks: Ticks, totals: pl.DataFrame) -> Iterator[Day]:
    """The UTC days that have trades."""
    columns = _columns(ticks.trades, "ts_recv", "price", "qty", "side")
    if not len(columns[0]):
        return
    first, last = int(columns[0][0]) // NS_PER_DAY, int(columns[0][-1]) // NS_PER_DAY
    for start in range(first * NS_PER_DAY, last * NS_PER_DAY + 1, NS_PER_DAY):
        i, j = np.searchsorted(columns[0], [start, start + NS_PER_DAY])
        if i < j:
            yield Day(start, min(start + NS_PER_DAY, ticks.end), *(c[i:j] for c in columns), totals)


def _day_frame(day: Day, spec: BarSpec, ticks: Ticks) -> pl.DataFrame:
    stops, thresholds = spec.stops(day), spec.thresholds(day)
    in_quote = spec.measure == "turnover"
    counts, values = cut(
        day.ts_recv, day.price, day.qty, day.side, stops, thresholds, in_quote=in_quote
    )
    columns = dict(zip(COUNTS + VALUES, [*counts, *values], strict=True))
    columns["ts_open"], columns["ts"] = spec.times(day, columns["ts_open"], columns["ts"])
    n_bars = len(columns["ts"])
    columns["partial"] = np.zeros(n_bars, bool)
    if n_bars and not spec.is_closed(day, {name: column[-1] for name, column in columns.items()}):
        if day.end < day.midnight:
            columns = {name: column[:-1] for name, column in columns.items()}
        else:
            columns["partial"][-1], columns["ts"][-1] = True, day.midnight
    # A day's own gaps only: one that ends on the next day's first nanosecond is not this day's to
    # know.
    known_until = np.minimum(columns["ts"], day.midnight - 1)
    columns["segment"] = np.searchsorted(ticks.gaps, known_until, side="right")
    columns["bar"] = np.arange(len(columns["ts"]))
    columns |= _quote_state(ticks.quotes, columns["ts"], day.start)
    return pl.DataFrame({name: columns[name] for name in BARS}, schema=BARS)


def _number(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(bar=pl.int_range(pl.len(), dtype=pl.Int64))


def _quote_state(quotes: pl.DataFrame, ts: np.ndarray, day_start: int) -> dict[str, pl.Series]:
    """The day's last quote strictly before `ts`, null where there was none yet."""
    ts_recv = quotes["ts_recv"].to_numpy()
    last = np.searchsorted(ts_recv, ts) - 1
    known = last >= np.searchsorted(ts_recv, day_start)
    rows = pl.Series(last).set(pl.Series(~known), None)
    return {name: quotes[name].gather(rows) for name in QUOTE_STATE}


def _totals_up_to(ticks: Ticks, history: pl.DataFrame | None) -> pl.DataFrame:
    own = hourly_totals(ticks)
    if history is None or not own.height:
        return own
    return pl.concat([history.filter(pl.col("hour") < own["hour"][0]), own])


def _columns(frame: pl.DataFrame, *names: str) -> list[np.ndarray]:
    return [frame[name].to_numpy() for name in names]
