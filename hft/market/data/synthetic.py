"""`data=synthetic`: simulates a limit order book whose best possible forecast is known.

The reference price is drawn apart from all order flow (_reference_walk), and the book re-centres on
it (_book_simulator). With alpha = 0 the flow leans on a latent m and its signs have long memory,
but the price ignores both; only whether a print is at bid or ask tells something of the next print:
half a tick. With alpha > 0 the price drifts with m. With `impact` the queues move the price
instead: that is predictable by construction, so good for fills and speed, never for null controls.

Every day has random streams of its own. It opens with fresh queues and metaorders, at the price and
m to which the earlier days lead: drawing their reference takes 25 ms a day, with `impact` their
whole simulation.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from hft.clock import NS_PER_MS, day_of, to_ns
from hft.market.data import DataSpec
from hft.market.data._book_simulator import PRINTS_PER_ORDER, Flow, simulate_book
from hft.market.data._reference_walk import (
    MAX_LATENT,
    STEP_MS,
    Moves,
    draw_latent,
    draw_moves,
    geometric_scale,
    plan_moves,
)
from hft.market.ticks import DataError, Ticks, after_gaps
from hft.schema import QUOTES, TRADES, book_columns

LOTS_PER_UNIT = 1000  # quantities are multiples of 0.001
ROWS_PER_DAY = 1_000_000_000  # so that ids and sequence numbers rise over the days
# A stream each, so that what one draws leaves the others alone: a change of the flow leaves the
# price path bit for bit as it is.
LATENT, MOVES, FLOW, FEED, OPENING = range(5)  # purposes of random streams


class Synthetic(DataSpec):
    kind: Literal["synthetic"]
    seed: int = Field(ge=0, description="seed of all random streams")
    price: float = Field(gt=0, description="opening price (quote currency)")
    tick: float = Field(ge=1e-6, description="price step (quote currency)")
    volatility_bps_per_sqrt_s: float = Field(
        ge=0, le=100, description="of the reference price (bps per sqrt second)"
    )
    alpha: float = Field(
        ge=0, le=5, description="sd of the drift (volatility per sqrt drift_s); 0 is unpredictable"
    )
    drift_s: float = Field(ge=1, le=86_400, description="time constant of the latent drift (s)")
    flow_lean: float = Field(
        ge=0, le=1, description="share of orders that follow the latent drift, at 1 sd of it"
    )
    sign_tail: float = Field(
        gt=1, le=5, description="tail exponent of metaorder lengths; smaller is longer memory"
    )
    trades_per_s: float = Field(gt=0, le=10_000, description="prints (per s)")
    trade_qty: float = Field(ge=0.002, description="mean size of a print (base currency)")
    limits_per_s: float = Field(
        gt=0, le=100_000, description="limit orders over all levels and both sides (per s)"
    )
    limit_qty: float = Field(ge=0.002, description="mean size of a limit order (base currency)")
    limit_life_s: float = Field(
        gt=0, description="mean time until a resting quantity is cancelled (s)"
    )
    extra_spread_ticks: float = Field(
        ge=0, le=100, description="mean widening of the one-tick spread, a side (ticks)"
    )
    levels: int = Field(ge=1, le=100, description="price levels a side that hold orders")
    book_levels: int = Field(ge=1, le=100, description="price levels a side in the book stream")
    book_interval_ms: int = Field(ge=1, le=60_000, description="time between book snapshots (ms)")
    feed_latency_ms: int = Field(
        ge=0, le=10_000, description="least time from exchange to receiver (ms)"
    )
    feed_jitter_ms: float = Field(
        ge=0, le=1000, description="mean of the exponential delay on top of it (ms)"
    )
    impact: bool = Field(
        description="empty best queues move the price, in place of the reference walk"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Synthetic:
        # No file is there to say what these words mean.
        if self.start == "first" or self.end == "last":
            raise ValueError(
                f"start and end must be dates or times, got start {self.start} and end {self.end}"
            )
        if self.book_levels > self.levels:
            raise ValueError(
                f"book_levels must be at most levels, got {self.book_levels} of {self.levels}"
            )
        if self.opening_ticks() <= self.levels:
            raise ValueError(
                f"price must be more than levels={self.levels} ticks, got {self.price}: lower tick"
            )
        # With impact nothing reads these: a number that changes nothing is refused.
        unused = {
            n: getattr(self, n)
            for n in ("volatility_bps_per_sqrt_s", "alpha", "extra_spread_ticks")
        }
        if self.impact and any(unused.values()):
            raise ValueError(
                f"impact lets the queues alone move the price: {', '.join(unused)} must be 0, "
                f"got {unused}"
            )
        if not self.impact and not self.volatility_bps_per_sqrt_s:
            raise ValueError("volatility_bps_per_sqrt_s must be > 0 unless impact=true, got 0")
        reach = MAX_LATENT * self.moves(self.opening_ticks()).bias
        if reach > 1:
            raise ValueError(
                f"alpha must be at most {self.alpha / reach:.2f} at drift_s={self.drift_s}, "
                f"got {self.alpha}: beyond it every move would follow the drift"
            )
        return self

    def source(self) -> str:
        # Markets of one seed share their random draws, whatever alpha and the flow's numbers are.
        return f"{self.symbol} of seed {self.seed}"

    def days(self) -> list[dt.date]:
        first, last = day_of(to_ns(self.start)), day_of(to_ns(self.end) - 1)
        return [first + dt.timedelta(days=i) for i in range((last - first).days + 1)]

    def content(self, day: dt.date) -> Any:
        # The start of the range too: where a day opens follows from all days before it.
        return [to_ns(self.start), *self.bounds(day)]

    def read_day(self, day: dt.date, calibration: dict[str, Any]) -> Ticks:
        start, end = self.bounds(day)
        session = _session(self, day)
        rows = _simulate(self, session)
        (ts_trade, ts_quote, ts_book), moments = _receive_times(
            self, session, [rows.trades, rows.quotes, rows.book]
        )
        book_contract = book_columns(self.book_levels)
        trade_values = _trade_values(self, rows.trades)
        quote_values = _quote_values(self, rows.quotes)
        book_values = _book_values(self, rows.book)
        return Ticks(
            trades=_frame(TRADES, ts_trade, rows.trades, trade_values, day=day, end=end),
            quotes=_frame(QUOTES, ts_quote, rows.quotes, quote_values, day=day, end=end),
            book=_frame(book_contract, ts_book, rows.book, book_values, day=day, end=end),
            start=start,
            end=end,
            gaps=after_gaps(moments[moments < end], self.gap_s),
            notes={"order_events": int(rows.n_events)},
        )

    def opening_ticks(self) -> int:
        return round(self.price / self.tick)

    def moves(self, centre: int) -> Moves:
        """How the reference moves on a day that opens at `centre` ticks; within the day its
        volatility is constant in ticks.
        """
        volatility_ticks = self.volatility_bps_per_sqrt_s * 1e-4 * centre
        return plan_moves(volatility_ticks, alpha=self.alpha, drift_s=self.drift_s)

    def flow(self) -> Flow:
        limit_lots = self.limit_qty * LOTS_PER_UNIT
        per_queue = self.limits_per_s / (2 * self.levels)
        # Each queue starts where as much arrives as is cancelled.
        depth_lots = max(1, round(per_queue * self.limit_life_s * limit_lots))
        return Flow(
            # trades_per_s counts prints, of which a market order makes PRINTS_PER_ORDER.
            market_per_ms=self.trades_per_s / PRINTS_PER_ORDER / 1000,
            limit_per_ms=self.limits_per_s / 1000,
            # A cancellation takes limit_lots in the mean, so that a lot lives for limit_life_s.
            cancel_per_lot_ms=1 / (1000 * self.limit_life_s * limit_lots),
            market_lots=self.trade_qty * LOTS_PER_UNIT,
            limit_lots=limit_lots,
            depth_lots=depth_lots,
            lean=self.flow_lean,
            sign_tail=self.sign_tail,
            extra_scale=geometric_scale(self.extra_spread_ticks),
            levels=self.levels,
            book_levels=self.book_levels,
            book_interval_ms=self.book_interval_ms,
            impact=self.impact,
        )


def latent_drift(spec: Synthetic) -> pl.DataFrame:
    """The oracle, never part of Ticks: ts_recv (ns), drift_bps_per_s, m. A row holds until the
    next, STEP_MS later.

    The drift is in bps of the day's opening price. Where d is the drift now, no forecast of the
    return (bps) over the next h seconds beats d * drift_s * (1 - exp(-h / drift_s)). With impact
    the drift is 0, because m moves the flow alone.
    """
    # At m = 1.
    drift_bps_per_s = spec.alpha * spec.volatility_bps_per_sqrt_s / math.sqrt(spec.drift_s)
    frames = []
    for day in spec.days():
        session = _session(spec, day)
        # As received at the earliest, so that the oracle joins to ticks by ts_recv.
        ms = session.start_ms + spec.feed_latency_ms + STEP_MS * np.arange(len(session.latent))
        m = session.latent
        frames.append(
            pl.DataFrame(
                {"ts_recv": ms * NS_PER_MS, "drift_bps_per_s": drift_bps_per_s * m, "m": m}
            )
        )
    return pl.concat(frames)


class _Session(NamedTuple):
    """What is drawn apart from all flow. Times are the exchange's: they begin feed_latency_ms
    before the UTC day, which is by ts_recv.
    """

    day: dt.date
    start_ms: int
    duration_ms: int
    centre: int  # ticks at the opening
    latent: np.ndarray
    move_ms: np.ndarray
    move_ticks: np.ndarray
    closing_centre: int
    closing_m: float


class _Rows(NamedTuple):
    trades: np.ndarray
    quotes: np.ndarray
    book: np.ndarray
    closing_centre: int
    n_events: int


def _session(spec: Synthetic, day: dt.date) -> _Session:
    centre = spec.opening_ticks()
    # From the stationary distribution, so that the first day is like any other.
    m = float(_stream(spec, spec.days()[0], OPENING).standard_normal())
    for earlier in spec.days():
        if earlier == day:
            return _draw_session(spec, day, centre, m)
        centre, m = _closing(spec, earlier, centre, m)
    raise DataError(f"data: {day} is not between {spec.start} and {spec.end}")


# Without it n days would draw about n^2 / 2 sessions.
@lru_cache(maxsize=4096)
def _closing(spec: Synthetic, day: dt.date, centre: int, m: float) -> tuple[int, float]:
    session = _draw_session(spec, day, centre, m)
    # With impact only the queues know where the price ends.
    closing = _simulate(spec, session).closing_centre if spec.impact else session.closing_centre
    return int(closing), session.closing_m


def _draw_session(spec: Synthetic, day: dt.date, centre: int, m: float) -> _Session:
    start, end = spec.bounds(day)
    start_ms = -(-start // NS_PER_MS) - spec.feed_latency_ms
    duration_ms = -(-end // NS_PER_MS) - spec.feed_latency_ms - start_ms
    latent, closing_m = draw_latent(
        _stream(spec, day, LATENT), m, duration_ms=duration_ms, drift_s=spec.drift_s
    )
    move_ms, move_ticks = draw_moves(
        _stream(spec, day, MOVES), spec.moves(centre), latent, duration_ms
    )
    path = centre + np.cumsum(move_ticks)
    _check_price(spec, day, int(path.min(initial=centre)))
    closing = int(path[-1]) if len(path) else centre
    return _Session(
        day, start_ms, duration_ms, centre, latent, move_ms, move_ticks, closing, float(closing_m)
    )


def _simulate(spec: Synthetic, session: _Session) -> _Rows:
    rng = _stream(spec, session.day, FLOW)
    rows = _Rows(
        *simulate_book(
            rng,
            spec.flow(),
            session.latent,
            session.move_ms,
            session.move_ticks,
            session.centre,
            session.start_ms,
            session.duration_ms,
        )
    )
    # Once more: the widened spread reaches below the reference, and with impact the queues move the
    # price.
    _check_price(spec, session.day, int(rows.quotes[:, 1].min()))
    return rows


def _check_price(spec: Synthetic, day: dt.date, lowest_ticks: int) -> None:
    # Every level below the best bid needs a price above 0.
    if lowest_ticks <= spec.levels:
        raise DataError(
            f"data: the synthetic price falls to {lowest_ticks * spec.tick:g} on {day}, below its "
            f"{spec.levels} price levels: raise data.price, lower data.tick or "
            "data.volatility_bps_per_sqrt_s, or take another data.seed"
        )


def _stream(spec: Synthetic, day: dt.date, purpose: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, day.toordinal(), purpose])


def _receive_times(
    spec: Synthetic, session: _Session, streams: list[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """ts_recv of each stream's rows, and all moments at which something arrives.

    Events of one millisecond arrive together, and milliseconds arrive in order. So no stream runs
    ahead of another, and what ties on arrival tied at the exchange.
    """
    ms = np.sort(np.concatenate([rows[:, 0] for rows in streams]), kind="stable")
    ms = ms[np.diff(ms, prepend=ms[0] - 1) > 0]  # np.unique hashes, 20 times slower here
    jitter = (
        _stream(spec, session.day, FEED).exponential(size=len(ms)) * spec.feed_jitter_ms * NS_PER_MS
    )
    order = np.arange(len(ms))
    earliest = (ms + spec.feed_latency_ms) * NS_PER_MS + jitter.astype(np.int64)
    # Without a loop: each moment is the later of its earliest time and 1 ns after the moment
    # before. Two moments at one time would be a tie that the exchange did not have.
    moments = np.maximum.accumulate(earliest - order) + order
    return [moments[np.searchsorted(ms, rows[:, 0])] for rows in streams], moments


def _frame(
    contract: dict[str, Any],
    received: np.ndarray,
    rows: np.ndarray,
    values: list[np.ndarray],
    *,
    day: dt.date,
    end: int,
) -> pl.DataFrame:
    ordinals = day.toordinal() * ROWS_PER_DAY + np.arange(len(rows))
    columns = [received, rows[:, 0] * NS_PER_MS, ordinals, *values]
    # What arrives after the day's end is lost, because the next day opens afresh.
    n = int(np.searchsorted(received, end))
    return pl.DataFrame(
        {name: c[:n] for name, c in zip(contract, columns, strict=True)}, schema=contract
    )


def _trade_values(spec: Synthetic, rows: np.ndarray) -> list[np.ndarray]:
    return [_price(spec, rows[:, 1]), _qty(rows[:, 2]), rows[:, 3].astype(np.int8)]


def _quote_values(spec: Synthetic, rows: np.ndarray) -> list[np.ndarray]:
    return [_price(spec, rows[:, 1]), _qty(rows[:, 2]), _price(spec, rows[:, 3]), _qty(rows[:, 4])]


def _book_values(spec: Synthetic, rows: np.ndarray) -> list[np.ndarray]:
    blocks = np.split(rows[:, 1:].T, 4)  # bid, bid_qty, ask, ask_qty, as in the contract
    return [_qty(v) if i % 2 else _price(spec, v) for i, block in enumerate(blocks) for v in block]


def _price(spec: Synthetic, ticks: np.ndarray) -> np.ndarray:
    """The float64 nearest to the decimal, as if it had been parsed from text."""
    # Rounded to the tick's own decimals, because 3 * 0.1 is 0.30000000000000004.
    exponent = Decimal(str(spec.tick)).as_tuple().exponent
    assert isinstance(exponent, int), "a finite number has one"
    return np.round(ticks * spec.tick, max(0, -exponent))


def _qty(lots: np.ndarray) -> np.ndarray:
    return lots / LOTS_PER_UNIT
