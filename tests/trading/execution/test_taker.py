"""taker: fills by hand, an event-by-event twin, and the null of a driftless walk."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_MS
from hft.dataset.barriers import Exits
from hft.market.bars import build_bars, trade_bounds
from hft.market.bars.tick import TickBars
from hft.trading.execution.taker import Taker
from hft.trading.fees import FeeSchedule
from tests.dataset.labels.hand import market, markets
from tests.random_market import random_ticks


def taker(latency_ms: float = 100.0, *, half_spread_bps: float = 1.0) -> Taker:
    return Taker(kind="taker", latency_ms=latency_ms, assumed_half_spread_bps=half_spread_bps)


def exits(n: int, take_profit: float, stop_loss: float, horizon: int) -> Exits:
    return Exits(np.full(n, take_profit), np.full(n, stop_loss), horizon)


def sides(n: int, **chosen: int) -> np.ndarray:
    out = np.zeros(n, np.int8)
    for name, side in chosen.items():
        out[int(name[1:])] = side
    return out


def only(ledger: pl.DataFrame) -> dict:
    assert len(ledger) == 1
    return ledger.row(0, named=True)


# The price jumps from 100 to 110 in the tick after the decision at 1000 ms, before latency is over.
JUMP = [
    [(900, 100.0), (1000, 100.0)],
    [(1001, 110.0), (1200, 110.0)],
    [(1300, 110.0), (1400, 110.0)],
    [(3000, 110.0)],
]
JUMP_QUOTES = [
    (990, 99.9, 100.1),
    (1001, 109.9, 110.1),
    (1150, 109.8, 110.2),
    (1600, 109.7, 110.3),
    (3100, 109.0, 111.0),
]


def test_a_jump_in_the_next_tick_is_paid_not_earned():
    ticks, bars = market(JUMP, quotes=JUMP_QUOTES)
    row = only(
        taker().simulate(sides(4, _0=1), ticks, bars, exits(4, np.inf, np.inf, 2), until=ticks.end)
    )
    assert (row["ts_entry"], row["price_entry"]) == (
        1150 * NS_PER_MS,
        110.2,
    )  # first quote at or after 1100, at the ask
    assert (row["ts_exit"], row["price_exit"]) == (
        1600 * NS_PER_MS,
        109.7,
    )  # bar 2 closes at 1400, out at the bid
    assert row["reason"] == "time"
    assert row["gross_bps"] == pytest.approx((109.7 / 110.2 - 1) * 1e4)
    assert row["qty"] == pytest.approx(1 / 110.2)


def test_without_latency_the_fill_is_the_next_quote_and_never_the_last_one():
    ticks, bars = market(JUMP, quotes=JUMP_QUOTES)
    row = only(
        taker(0.0).simulate(
            sides(4, _0=1), ticks, bars, exits(4, np.inf, np.inf, 2), until=ticks.end
        )
    )
    assert row["price_entry"] == 110.1


def test_without_quotes_the_next_trade_and_the_assumed_spread():
    ticks, bars = market(JUMP)
    row = only(
        taker().simulate(sides(4, _0=-1), ticks, bars, exits(4, np.inf, np.inf, 2), until=ticks.end)
    )
    assert (row["ts_entry"], row["price_entry"]) == (
        1200 * NS_PER_MS,
        pytest.approx(110 * (1 - 1e-4)),
    )
    assert (row["ts_exit"], row["price_exit"]) == (
        3000 * NS_PER_MS,
        pytest.approx(110 * (1 + 1e-4)),
    )
    assert row["markout_100ms_bps"] is None


def test_a_trade_tied_with_the_close_is_no_fill_unless_later_in_the_stream():
    prints = [
        [(1000, 100.0), (1000, 101.0)],
        [(1000, 102.0), (1001, 103.0)],
        [(1002, 104.0)],
        [(1003, 105.0)],
    ]
    ticks, bars = market(prints)
    free = taker(0.0, half_spread_bps=0.0)
    row = only(
        free.simulate(sides(4, _0=1), ticks, bars, exits(4, np.inf, np.inf, 1), until=ticks.end)
    )
    assert (row["price_entry"], row["price_exit"]) == (102.0, 104.0)


def barrier_case(path: list[float], side: int, take_profit: float, stop_loss: float) -> dict:
    """Entry at 100 by quotes without a spread; one print and one quote each 10 ms after it along
    `path`.
    """
    prints = [[(1000, 100.0)], *([(1100 + 10 * i, p)] for i, p in enumerate([100.0, *path]))]
    quotes = [(1000, 100.0, 100.0), (1100, 100.0, 100.0)]
    quotes += [(1111 + 10 * i, p, p) for i, p in enumerate(path)]
    ticks, bars = market(prints, quotes=quotes)
    near = exits(len(bars), take_profit, stop_loss, len(path))
    return only(taker().simulate(sides(len(bars), _0=side), ticks, bars, near, until=ticks.end))


@pytest.mark.parametrize(
    ("side", "path", "reason"),
    [
        (1, [101.0, 102.0, 90.0], "take_profit"),
        (1, [99.5, 99.0, 110.0], "stop_loss"),
        (-1, [99.0, 98.0, 110.0], "take_profit"),
        (-1, [100.5, 101.0, 90.0], "stop_loss"),
    ],
)
def test_first_touch_decides_and_a_short_is_mirrored(side, path, reason):
    """Take profit 2 %, stop 1 %; the exit fills 100 ms after the touch, here at the last state."""
    row = barrier_case([*path, *[100.0] * 12], side, 0.02, 0.01)
    assert row["reason"] == reason
    touched = 1110 + 10 * (1 if len(path) == 3 else 0)
    assert row["ts_exit"] == (touched + 101) * NS_PER_MS
    assert row["price_exit"] == 100.0


def test_what_follows_the_touch_is_not_earned():
    """The print gaps through the barrier, and 100 ms later the price is back: the exit is made at
    that price.
    """
    row = barrier_case([150.0, *[97.0] * 20], 1, 0.02, 0.05)
    assert row["reason"] == "take_profit"
    assert row["gross_bps"] == pytest.approx(-300)


def test_open_at_the_end_is_closed_at_the_last_state_before_it():
    ticks, bars = market(JUMP, quotes=JUMP_QUOTES)
    far = exits(4, np.inf, np.inf, 50)
    row = only(taker().simulate(sides(4, _0=1), ticks, bars, far, until=3000 * NS_PER_MS))
    assert (row["ts_exit"], row["price_exit"], row["reason"]) == (1600 * NS_PER_MS, 109.7, "end")
    assert not len(taker().simulate(sides(4, _0=1), ticks, bars, far, until=1150 * NS_PER_MS))


def test_the_next_decision_comes_after_the_exit_fill():
    ticks, bars = market(JUMP, quotes=JUMP_QUOTES)
    ledger = taker().simulate(
        sides(4, _0=1, _1=1, _2=1, _3=-1), ticks, bars, exits(4, np.inf, np.inf, 2), until=ticks.end
    )
    assert ledger["bar"].to_list() == [
        0,
        3,
    ]  # out at 1600; bars 1 and 2 close before, bar 3 at 3000
    assert ledger["reason"].to_list() == ["time", "end"]


def test_markouts_are_the_mid_known_then():
    ticks, bars = market(JUMP, quotes=JUMP_QUOTES)
    row = only(
        taker(0.0).simulate(
            sides(4, _0=1), ticks, bars, exits(4, np.inf, np.inf, 2), until=ticks.end
        )
    )
    assert row["markout_100ms_bps"] == pytest.approx(
        (110.0 - 110.1) / 110.1 * 1e4
    )  # mid as of 1101 ms
    assert row["markout_1s_bps"] == pytest.approx((110.0 - 110.1) / 110.1 * 1e4)
    assert row["markout_10s_bps"] is None  # after the data


class Twin:
    """The taker as a reader of events: one event at a time, no index, no search."""

    def __init__(self, spec: Taker, side_T, ticks, bars, exits: Exits, until: int):
        self.latency, self.away = (
            round(spec.latency_ms * NS_PER_MS),
            spec.assumed_half_spread_bps / 1e4,
        )
        self.side_T, self.bars, self.exits, self.until = side_T, bars.to_dicts(), exits, until
        self.on_trades = not len(ticks.quotes)
        self.away *= self.on_trades
        self.rows, self.closed, self.last_exit, self.state = [], set(), -1, None
        self.position = self.order = self.leave = None

    def run(self, ticks, bounds) -> list[tuple]:
        trades = [(r["ts_recv"], 0, i, "trade", r) for i, r in enumerate(ticks.trades.to_dicts())]
        quotes = [(r["ts_recv"], 1, i, "quote", r) for i, r in enumerate(ticks.quotes.to_dicts())]
        closes = [(r["ts"], 0, bounds[t + 1] - 0.5, "close", t) for t, r in enumerate(self.bars)]
        for ts, _, _, what, body in sorted([*trades, *quotes, *closes], key=lambda e: e[:3]):
            if ts >= self.until:
                break
            if what == ("trade" if self.on_trades else "quote"):
                self.fill(ts, body)
            if what == "trade" and self.position and not self.leave:
                self.touch(ts, body["price"])
            if what == "close":
                self.close(ts, body)
        if self.position:
            self.sell_out(*self.state, "end")
        return self.rows

    def fill(self, ts, row):
        self.state = (ts, row)
        if self.order and ts >= self.order[0]:
            t, side = self.order[1:]
            paid = self.price(row, side)
            self.position, self.order = (
                {"t": t, "side": side, "ts": ts, "paid": paid, "fresh": True},
                None,
            )
            if t + self.exits.horizon in self.closed:
                self.leave = (ts + self.latency, "time")
        elif self.position and self.leave and ts >= self.leave[0]:
            self.sell_out(ts, row, self.leave[1])

    def price(self, row, side):
        base = row["price"] if self.on_trades else row["ask" if side > 0 else "bid"]
        return base * (1 + side * self.away)

    def sell_out(self, ts, row, reason):
        p = self.position
        self.rows.append(
            (p["t"], p["side"], p["ts"], p["paid"], ts, self.price(row, -p["side"]), reason)
        )
        self.position = self.leave = None
        self.last_exit = ts

    def touch(self, ts, price):
        p = self.position
        if p.pop("fresh", False) and self.on_trades:
            return  # the print that filled the entry
        up, down = self.exits.take_profit[p["t"]], self.exits.stop_loss[p["t"]]
        up, down = (up, down) if p["side"] > 0 else (down, up)
        if price >= p["paid"] * (1 + up):
            self.leave = (ts + self.latency, "take_profit" if p["side"] > 0 else "stop_loss")
        elif price <= p["paid"] * (1 - down):
            self.leave = (ts + self.latency, "stop_loss" if p["side"] > 0 else "take_profit")

    def close(self, ts, t):
        self.closed.add(t)
        if self.position and not self.leave and t == self.position["t"] + self.exits.horizon:
            self.leave = (ts + self.latency, "time")
        known = not np.isnan(self.exits.take_profit[t] + self.exits.stop_loss[t])
        if (
            self.side_T[t]
            and known
            and not self.position
            and not self.order
            and ts > self.last_exit
        ):
            self.order = (ts + self.latency, t, int(self.side_T[t]))


@settings(max_examples=100, deadline=None)
@given(
    made=markets(),
    seed=st.integers(0, 1000),
    latency_ms=st.sampled_from([0.0, 1.0, 2.0, 30.0]),
    horizon=st.integers(1, 6),
    cut=st.integers(0, 20),
)
def test_twin(made, seed, latency_ms, horizon, cut):
    ticks, bars = made
    rng = np.random.default_rng(seed)
    side_T = rng.integers(-1, 2, len(bars)).astype(np.int8)
    distances = rng.choice(
        [1e-3, 3e-3, 2e-2, np.inf, np.nan], (2, len(bars)), p=[0.3, 0.3, 0.2, 0.1, 0.1]
    )
    leaving = Exits(*distances, horizon)
    until = ticks.end - cut * NS_PER_MS
    spec = taker(latency_ms)
    got = spec.simulate(side_T, ticks, bars, leaving, until=until)
    twin = Twin(spec, side_T, ticks, bars, leaving, until)
    want = twin.run(ticks, trade_bounds(ticks.trades["ts_recv"].to_numpy(), bars))
    columns = ("bar", "side", "ts_entry", "price_entry", "ts_exit", "price_exit", "reason")
    assert got.select(columns).rows() == want


@pytest.mark.parametrize("quotes", [True, False])
def test_on_a_driftless_walk_gross_is_minus_the_spread_and_net_minus_all_costs(quotes):
    ticks = random_ticks(3, n_trades=60_000, quotes=quotes)
    wide = ticks.quotes.with_columns(pl.col("bid") * (1 - 1e-4), pl.col("ask") * (1 + 1e-4))
    ticks = type(ticks)(**{**vars(ticks), "quotes": wide})
    bars = build_bars(ticks, TickBars(kind="tick", size=5))
    side_T = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), len(bars))
    ledger = taker(50.0).simulate(
        side_T, ticks, bars, exits(len(bars), 3e-4, 3e-4, 5), until=ticks.end
    )
    spread_bps = 2.0  # half of it each way, on top of the market's own 0.017
    error = ledger["gross_bps"].std() / np.sqrt(len(ledger))
    assert len(ledger) > 1000
    assert error < 0.2
    assert abs(ledger["gross_bps"].mean() + spread_bps) < 3 * error + 0.02
    net = FeeSchedule(maker_bps=2.0, taker_bps=5.0).net_bps(ledger)
    assert abs(net.mean() + spread_bps + 10) < 3 * error + 0.02
