"""Cuts trades into BARS: one row per bar, with the best quotes as they were known when it closed.

UTC midnight closes whatever is open. So the bars of a day depend on that day alone (adaptive kinds:
and on the hourly totals before it), and days can be built apart and joined. Definitions:
docs/definitions.md 5.4-5.7.

To add a kind: one module here with a BarSpec subclass that says where bars close,
`conf/bars/<kind>.yaml`, one test. The conformance suite covers it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_DAY, NS_PER_HOUR, to_iso
from hft.market.bars._kernel import COUNTS, RELATIVE_SLACK, VALUES, cut, interval_stops
from hft.market.ticks import Ticks
from hft.schema import BARS, check
from hft.spec import Kind, UserError

HOURLY = {"hour": pl.Int64, "volume": pl.Float64, "turnover": pl.Float64}
HOURS_PER_DAY = 24
QUOTE_STATE = ("bid", "ask", "bid_qty", "ask_qty")


class BarError(UserError):
    """Ticks that make no bar: what they hold, and the remedy."""


@dataclass(frozen=True)
class Day:
    """Trades of one UTC day, known up to `end`, which is the next midnight when the day is
    complete.

    `totals` are the hourly totals of this day and all days before it; empty unless the kind looks
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
    """Where bars close: at `stops`, and where the sum of `measure` reaches `thresholds`.

    `size` is the threshold of every kind, in the kind's `unit`.
    """

    unit: ClassVar[str]
    measure: ClassVar[str] = "volume"

    size: float = Field(gt=0, description="what a bar holds at least, in the unit of the kind")

    @property
    def hours_back(self) -> int:
        """Hours with trades that must lie before a bar's opening hour; 0 for a fixed threshold."""
        return 0

    def stops(self, day: Day) -> np.ndarray:
        """Increasing trade indexes at which a bar ends whatever it holds; the last one is the
        number of trades.
        """
        return np.array([len(day.ts_recv)])

    def thresholds(self, day: Day) -> np.ndarray:
        """Per hour of the day, how much of `measure` ("volume" or "turnover") closes a bar that
        opened in it: inf for no threshold, nan where no bar opens.
        """
        return np.full(HOURS_PER_DAY, np.inf)

    def is_closed(self, day: Day, last: dict[str, Any]) -> bool:
        """Whether the day's last bar met its condition; else it was open when the trades ended."""
        # The kernel's own test, slack included: else a bar that the kernel closed would look open.
        threshold = self.thresholds(day)[(last["ts_open"] - day.start) // NS_PER_HOUR]
        return last[self.measure] >= threshold * (1 - RELATIVE_SLACK)

    def times(self, day: Day, ts_open: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ts_open and ts of bars whose first and last trades are at `ts_open` and `ts`."""
        return ts_open, ts

    def available(self, ticks: Ticks) -> float:
        """How much the ticks hold of what `size` measures; adds up over days."""
        raise NotImplementedError

    def shortage(self, available: float) -> str:
        """The message when `available` makes no bar; it suggests a size for about a hundred."""
        return (
            f"bars.size={self.size:g} {self.unit} gives no bar: the data hold {available:g} "
            f"{self.unit} in all; try bars.size={available / 100:.2g}"
        )


def build_bars(
    ticks: Ticks, spec: BarSpec, history: pl.DataFrame | None = None, *, allow_empty: bool = False
) -> pl.DataFrame:
    """BARS of one or more UTC days. `history` are the hourly totals before the first of them, of
    which adaptive kinds read the last `spec.hours_back` rows. The open remainder at the end of an
    incomplete last day is no bar.

    BarError when the threshold is never met. With `allow_empty`, for a day of a longer range (a
    burn-in day, a minute before midnight), returns the bars there are: `require_bars` then judges
    the range.
    """
    if not ticks.trades.height and not allow_empty:
        raise BarError(
            f"bars: no trades from {to_iso(ticks.start)} to {to_iso(ticks.end)}: "
            "choose another data.start or data.end"
        )
    # Other kinds are spared the pass over the trades.
    totals = _totals_up_to(ticks, history) if spec.hours_back else pl.DataFrame(schema=HOURLY)
    # Day by day even here, so that days built apart and joined give the same bits.
    frames = [_day_frame(day, spec, ticks) for day in _split_days(ticks, totals)] or [
        pl.DataFrame(schema=BARS)
    ]
    bars = check(
        frames[0] if len(frames) == 1 else _number(pl.concat(frames, rechunk=True)),
        BARS,
        where="bars",
    )
    # all() of no bars is true too, so a range without any bar is caught as well.
    if not allow_empty and bars["partial"].all():
        raise BarError(spec.shortage(spec.available(ticks)))
    return bars


def require_bars(bars: pl.DataFrame, spec: BarSpec, available: float) -> pl.DataFrame:
    """`bars` itself, when at least one of them met its threshold; BarError when midnight alone
    closed all of them.

    `available` is the sum of `spec.available(ticks)` over the days of the range.
    """
    if bars["partial"].all():
        raise BarError(spec.shortage(available))
    return bars


def hourly_totals(ticks: Ticks) -> pl.DataFrame:
    """hour (ns of its start), volume, turnover. An hour without trades has no row."""
    ts_recv, price, qty, side = _columns(ticks.trades, "ts_recv", "price", "qty", "side")
    stops = interval_stops(ts_recv, 0, NS_PER_HOUR)
    counts, values = cut(
        ts_recv, price, qty, side, stops, np.full(HOURS_PER_DAY, np.inf), in_quote=False
    )
    # values[5] and values[6] are volume and turnover, by their place in VALUES.
    columns = {
        "hour": counts[0] // NS_PER_HOUR * NS_PER_HOUR,
        "volume": values[5],
        "turnover": values[6],
    }
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
        # A day numbers its segments from 0, so its last number is how many gaps its own bars have
        # seen.
        offset += frame["segment"][-1] if frame.height else 0
    joined = pl.concat(parts, rechunk=True)
    return check(_number(joined), BARS, where="bars")


def trade_bounds(ts_recv: np.ndarray, bars: pl.DataFrame) -> np.ndarray:
    """int64[n_bars + 1]: trades bounds[i]:bounds[i+1] belong to bar i. The bars' own counts part
    the trades, because times cannot part those that tie.
    """
    # Trades before the first bar belong to none: no adaptive bar opens during the burn-in.
    first = np.searchsorted(ts_recv, bars["ts_open"].to_numpy()[:1])
    bounds = (
        np.concatenate([first if bars.height else [0], bars["n_trades"].to_numpy()])
        .astype(np.int64)
        .cumsum()
    )
    assert bounds[-1] <= len(ts_recv), "these are not the trades of these bars"
    return bounds


def quote_bounds(ts_recv: np.ndarray, bars: pl.DataFrame) -> np.ndarray:
    """int64[n_bars + 1]: quotes bounds[i]:bounds[i+1] came in from the close of bar i-1 on (the
    first bar: from its UTC midnight on) and strictly before the close of bar i, because the closing
    trade comes before the quotes of its time.
    """
    begin = (
        bars["ts_open"].to_numpy()[:1] // NS_PER_DAY * NS_PER_DAY
        if bars.height
        else np.zeros(1, np.int64)
    )
    return np.searchsorted(ts_recv, np.concatenate([begin, bars["ts"].to_numpy()])).astype(np.int64)


def _split_days(ticks: Ticks, totals: pl.DataFrame) -> Iterator[Day]:
    """The UTC days that have trades."""
    ts, price, qty, side = _columns(ticks.trades, "ts_recv", "price", "qty", "side")
    if not len(ts):
        return
    first, last = int(ts[0]) // NS_PER_DAY, int(ts[-1]) // NS_PER_DAY
    for start in range(first * NS_PER_DAY, last * NS_PER_DAY + 1, NS_PER_DAY):
        i, j = np.searchsorted(ts, [start, start + NS_PER_DAY])
        if i < j:
            end = min(start + NS_PER_DAY, ticks.end)
            yield Day(start, end, ts[i:j], price[i:j], qty[i:j], side[i:j], totals)


def _day_frame(day: Day, spec: BarSpec, ticks: Ticks) -> pl.DataFrame:
    stops, thresholds = spec.stops(day), spec.thresholds(day)
    in_quote = spec.measure == "turnover"
    counts, values = cut(
        day.ts_recv, day.price, day.qty, day.side, stops, thresholds, in_quote=in_quote
    )
    columns = dict(zip(COUNTS + VALUES, [*counts, *values], strict=True))
    # Before is_closed, which for time bars compares the end of the interval.
    columns["ts_open"], columns["ts"] = spec.times(day, columns["ts_open"], columns["ts"])
    n_bars = len(columns["ts"])
    columns["partial"] = np.zeros(n_bars, bool)
    if n_bars and not spec.is_closed(day, {name: column[-1] for name, column in columns.items()}):
        if day.end < day.midnight:  # nobody knows yet how it will close
            columns = {name: column[:-1] for name, column in columns.items()}
        else:
            # docs/definitions.md 5.4: with it every trade of a complete day is in a bar.
            columns["partial"][-1], columns["ts"][-1] = True, day.midnight
    # Of the day's own gaps only: one that ends with the next day's first nanosecond is not among
    # them.
    known_until = np.minimum(columns["ts"], day.midnight - 1)
    columns["segment"] = np.searchsorted(ticks.gaps, known_until, side="right")
    columns["bar"] = np.arange(len(columns["ts"]))
    # After the midnight close, because that bar knows all quotes of its day.
    columns |= _quote_state(ticks.quotes, columns["ts"], day.start)
    return pl.DataFrame({name: columns[name] for name in BARS}, schema=BARS)


def _number(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(bar=pl.int_range(pl.len(), dtype=pl.Int64))


def _quote_state(quotes: pl.DataFrame, ts: np.ndarray, day_start: int) -> dict[str, pl.Series]:
    """The day's last quote strictly before each `ts`, null where there was none yet."""
    ts_recv = quotes["ts_recv"].to_numpy()
    last = np.searchsorted(ts_recv, ts) - 1
    # Not a quote of the day before: that day may not be loaded.
    known = last >= np.searchsorted(ts_recv, day_start)
    rows = pl.Series(last).set(pl.Series(~known), None)
    return {name: quotes[name].gather(rows) for name in QUOTE_STATE}


def _totals_up_to(ticks: Ticks, history: pl.DataFrame | None) -> pl.DataFrame:
    own = hourly_totals(ticks)
    if history is None or not own.height:
        return own
    # An hour of the ticks themselves counts once, however far the caller's history reaches.
    return pl.concat([history.filter(pl.col("hour") < own["hour"][0]), own])


def _columns(frame: pl.DataFrame, *names: str) -> list[np.ndarray]:
    return [frame[name].to_numpy() for name in names]
