"""The synthetic market: an order book that fits together, and a price that nothing in it can
forecast at alpha = 0.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft.clock import NS_PER_MS, NS_PER_S, to_ns
from hft.market.data import load_ticks
from hft.market.data import synthetic as module
from hft.market.data._reference_walk import MOVES_PER_S, plan_moves
from hft.market.data.synthetic import latent_drift
from hft.market.ticks import DataError, Ticks, cut_ticks
from hft.schema import QUOTES, TRADES, book_columns, check
from hft.spec import SpecError
from tests.market.data.synthetic_market import IMPACT, MID, ROOT, SPREAD, as_of, digest, spec_of


@pytest.fixture(scope="module")
def ticks() -> Ticks:
    return load_ticks(spec_of())


# Determinism and days


def test_a_seed_is_a_market(ticks):
    assert digest(load_ticks(spec_of())) == digest(ticks)
    assert digest(load_ticks(spec_of(seed=1))) != digest(ticks)


def test_plain_python_gives_the_same_bytes():
    """The kernels without numba: bounds are checked, integers do not overflow."""
    imports = (
        "from hft.market.data import load_ticks; "
        "from tests.market.data.synthetic_market import digest, spec_of"
    )
    changes = {"end": "2024-01-01T00:00:20", "book_interval_ms": 7}
    for more in ({}, {**IMPACT, "levels": 5, "limit_life_s": 0.5}):
        script = f"{imports}; print(digest(load_ticks(spec_of(**{changes | more!r}))))"
        env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert run.stdout.strip() == digest(load_ticks(spec_of(**changes | more))), run.stderr


@pytest.mark.parametrize("impact", [False, True])
def test_a_day_does_not_depend_on_how_it_is_reached(impact):
    changes = {"start": "2024-01-01T23:50"} | (IMPACT if impact else {})
    both = spec_of(**changes, end="2024-01-02T00:10")
    first, second = both.days()
    joined = load_ticks(both)
    module._closing.cache_clear()
    alone = both.read_day(second, {})
    assert digest(cut_ticks(joined, alone.start, alone.end)) == digest(alone)
    fewer = load_ticks(spec_of(**changes, end="2024-01-02"))
    assert digest(fewer) == digest(both.read_day(first, {}))
    assert fewer.end == alone.start == to_ns("2024-01-02")
    # The price goes on where it was: at most one move is lost in the milliseconds under way at
    # midnight.
    assert alone.quotes.select(MID).item(0, 0) == fewer.quotes.select(MID).item(-1, 0)


def test_a_longer_market_has_the_same_beginning(ticks):
    longer = load_ticks(spec_of(end="2024-01-01T00:11"))
    assert digest(cut_ticks(longer, ticks.start, ticks.end)) == digest(ticks)
    before = latent_drift(spec_of(alpha=1.0))
    assert (
        latent_drift(spec_of(alpha=1.0, end="2024-01-01T00:11")).head(before.height).equals(before)
    )


def test_content_tells_what_a_day_depends_on_apart_from_its_own_fields():
    spec = spec_of(end="2024-01-02T00:10")
    days = [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]
    assert spec.days() == days
    assert spec.content(days[0]) == spec_of(end="2024-01-03").content(days[0])
    assert spec.content(days[1]) != spec_of(end="2024-01-03").content(days[1])
    assert spec.content(days[1]) != spec_of(
        start="2024-01-01T01:00", end="2024-01-02T00:10"
    ).content(days[1])
    with pytest.raises(DataError, match="2024-01-03 is not between"):
        spec.read_day(dt.date(2024, 1, 3), {})


# The streams fit together


def test_streams_keep_the_contract(ticks):
    contracts = (TRADES, QUOTES, book_columns(5))
    recv_of = {}
    for stream, contract in zip(ticks.streams(), contracts, strict=True):
        check(stream, contract, where="synthetic")
        recv, exch = stream["ts_recv"].to_numpy(), stream["ts_exch"].to_numpy()
        assert np.all(np.diff(recv) >= 0)
        assert ticks.start <= recv[0]
        assert recv[-1] < ticks.end
        assert np.all(exch % NS_PER_MS == 0)
        assert np.all(recv - exch >= 5 * NS_PER_MS)
        assert np.all(np.diff(stream[stream.columns[2]]) == 1)
        assert stream.null_count().sum_horizontal().item() == 0
        for a, b in zip(
            exch.tolist(), recv.tolist(), strict=True
        ):  # one arrival per millisecond, in all streams
            assert recv_of.setdefault(a, b) == b
    arrivals = [recv_of[a] for a in sorted(recv_of)]
    assert all(a < b for a, b in itertools.pairwise(arrivals))
    assert (ticks.start, ticks.end) == (to_ns("2024-01-01"), to_ns("2024-01-01T00:10"))
    assert ticks.trades.group_by("ts_recv").len()["len"].max() > 1


def test_numbers_are_exact_decimals(ticks):
    prices = pl.concat([ticks.trades["price"], ticks.quotes["bid"], ticks.book["ask_4"]]).to_list()
    sizes = pl.concat(
        [ticks.trades["qty"], ticks.quotes["ask_qty"], ticks.book["bid_qty_4"]]
    ).to_list()
    assert all(p == float(f"{p:.1f}") for p in prices)
    assert all(q == float(f"{q:.3f}") and q > 0 for q in sizes)


def test_book_is_never_crossed_and_quotes_are_its_top(ticks):
    quotes, book = ticks.quotes, ticks.book
    assert (quotes["bid"] < quotes["ask"]).all()
    for k in range(4):
        assert np.allclose(book[f"bid_{k}"] - book[f"bid_{k + 1}"], 0.1)
        assert np.allclose(book[f"ask_{k + 1}"] - book[f"ask_{k}"], 0.1)
    for name in ("bid", "bid_qty", "ask", "ask_qty"):
        assert (
            as_of(quotes, pl.col(name), book["ts_recv"].to_numpy()) == book[f"{name}_0"].to_numpy()
        ).all()
    state = quotes.select("bid", "bid_qty", "ask", "ask_qty")
    assert (state != state.shift(1)).slice(1).select(pl.any_horizontal(pl.all()).all()).item(), (
        "a quote says news"
    )
    assert np.all(np.diff(quotes["ts_exch"]) > 0), "one quote per millisecond"
    assert np.all(book["ts_exch"].to_numpy() % (100 * NS_PER_MS) == 0)


def test_trades_print_at_the_touch(ticks):
    trades, quotes = ticks.trades, ticks.quotes
    ts, buys = trades["ts_exch"].to_numpy(), (trades["side"] > 0).to_numpy()
    touch = [
        np.where(
            buys,
            as_of(quotes, pl.col("ask"), when, "ts_exch"),
            as_of(quotes, pl.col("bid"), when, "ts_exch"),
        )
        for when in (ts - 1, ts)  # the reference may move in the print's own millisecond
    ]
    assert (
        (trades["price"].to_numpy() == touch[0]) | (trades["price"].to_numpy() == touch[1])
    ).all()
    assert set(trades["side"].unique()) == {-1, 1}


@pytest.mark.parametrize("impact", [False, True])
def test_queues_can_be_rebuilt_from_the_prints(impact):
    """With next to no limit orders and cancellations a best queue changes by what is traded against
    it, alone.
    """
    quiet = {"limits_per_s": 1e-4, "limit_life_s": 1e6, "trade_qty": 0.01}
    ticks = load_ticks(spec_of(**quiet | (IMPACT if impact else {})))
    quotes = ticks.quotes
    n_exact = n_empty = 0
    for side, price, qty, away in ((1, "ask", "ask_qty", 1), (-1, "bid", "bid_qty", -1)):
        hits = ticks.trades.filter(pl.col("side") == side)
        lots = np.concatenate([[0], np.cumsum(np.rint(hits["qty"].to_numpy() * 1000).astype(int))])
        traded = np.diff(
            lots[np.searchsorted(hits["ts_exch"].to_numpy(), quotes["ts_exch"].to_numpy(), "right")]
        )
        queue = np.rint(quotes[qty].to_numpy() * 1000).astype(int)
        ticks_moved = np.rint(np.diff(quotes[price].to_numpy()) * 10).astype(int) * away
        left = queue[:-1] - traded
        if impact:
            stays = (left > 0) & (ticks_moved == 0)
            assert np.all(ticks_moved[left <= 0] >= 1), "an emptied best queue moves the price away"
            assert np.all(left[ticks_moved > 0] <= 0), "and nothing else does"
        else:
            stays = left > 0
        assert np.array_equal(queue[1:][stays], left[stays])
        n_exact, n_empty = n_exact + stays.sum(), n_empty + (left <= 0).sum()
    assert n_exact > 1000
    assert n_empty > 10


def test_gaps_are_silences_of_all_streams():
    still = {
        "volatility_bps_per_sqrt_s": 1e-4,
        "trades_per_s": 0.02,
        "limits_per_s": 0.01,
        "limit_life_s": 1e4,
    }
    ticks = load_ticks(spec_of(gap_s=20.0, **still))
    arrivals = np.unique(np.concatenate([s["ts_recv"].to_numpy() for s in ticks.streams()]))
    expected = [b for a, b in itertools.pairwise(arrivals) if b - a > 20 * NS_PER_S]
    assert ticks.gaps.tolist() == expected
    assert len(expected) > 3


# Rates and sizes are what the config says


@given(st.floats(0.01, 1e4), st.floats(0, 1), st.floats(10, 1000))
def test_moves_have_the_volatility_and_drift_asked_for(volatility, alpha, drift_s):
    moves = plan_moves(volatility, alpha=alpha, drift_s=drift_s)
    p = 1.0 if moves.size_scale == 0 else 1 - math.exp(1 / moves.size_scale)
    rate = 1000 * moves.per_ms
    assert rate <= MOVES_PER_S
    assert rate * (2 - p) / p**2 == pytest.approx(volatility**2, rel=1e-6)
    assert rate * moves.bias / p == pytest.approx(
        alpha * volatility / math.sqrt(drift_s), rel=1e-6, abs=1e-12
    )


@pytest.fixture(scope="module")
def hour() -> Ticks:
    return load_ticks(spec_of(end="2024-01-01T01:00"))


def test_rates_and_sizes(hour):
    trades, quotes, book = hour.streams()
    n = 12 * 3600
    # A market order prints N times, geometric of mean 1.5: the variance of the count is n E[N^2] /
    # E[N] = 2 n.
    assert trades.height == pytest.approx(n, abs=4 * math.sqrt(2 * n))
    assert trades["qty"].mean() == pytest.approx(0.03, rel=0.05)
    assert trades["qty"].max() > 20 * trades["qty"].mean()
    grid = np.arange(hour.start + NS_PER_S, hour.end, NS_PER_S // 4)
    returns_bps = 1e4 * np.diff(np.log(as_of(quotes, MID, grid)))
    assert returns_bps.std() * 2 == pytest.approx(0.9, rel=0.05)
    assert as_of(quotes, SPREAD, grid).mean() == pytest.approx(0.1 * (1 + 2 * 0.3), rel=0.05)
    # Beyond the touch nothing trades: arrivals balance cancellations at rate * life * size;
    # cancellations larger than the queue lose their excess, a tenth here.
    deep = book.select((pl.col("bid_qty_4") + pl.col("ask_qty_4")) / 2).to_series().mean()
    assert deep == pytest.approx(55 / 20 * 2 * 0.12, rel=0.2)
    assert hour.notes["order_events"] > trades.height


def sign_correlation(ticks: Ticks, lag: int) -> float:
    side = ticks.trades["side"].to_numpy().astype(float)
    return np.mean(side[lag:] * side[:-lag]) - side.mean() ** 2


def test_signs_have_long_memory():
    hour_of = {"end": "2024-01-01T01:00", "flow_lean": 0.0}
    long, short = load_ticks(spec_of(**hour_of)), load_ticks(spec_of(**hour_of, sign_tail=5.0))
    noise = 1 / math.sqrt(long.trades.height)
    assert sign_correlation(long, 100) > 6 * noise
    assert abs(sign_correlation(short, 100)) < 4 * noise
    # Lillo, Mike, Farmer 2005: lag^-(sign_tail - 1), here 10^-0.5 = 0.32 a decade.
    assert 0.15 < sign_correlation(long, 100) / sign_correlation(long, 10) < 0.7


# What a user can get wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "first"}, "start and end must be dates or times, got start first"),
        ({"end": "2023-12-31"}, "start must be before end"),
        ({"book_levels": 11}, "book_levels must be at most levels, got 11 of 10"),
        (
            {"impact": True},
            "volatility_bps_per_sqrt_s, alpha, extra_spread_ticks must be 0, got .*0.9",
        ),
        (
            {"volatility_bps_per_sqrt_s": 0.0},
            "volatility_bps_per_sqrt_s must be > 0 unless impact=true",
        ),
        ({"alpha": 5.0}, r"alpha must be at most 2\.\d+ at drift_s=60.0, got 5.0"),
        ({"alpha": -0.1}, "alpha: must be greater than or equal to 0"),
        ({"price": 0.5}, "price must be more than levels=10 ticks"),
        ({"sign_tail": 1.0}, "sign_tail: must be greater than 1"),
    ],
)
def test_wrong_numbers_are_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        spec_of(**changes)


def test_a_price_that_falls_to_nothing_is_an_error():
    spec = spec_of(price=1.2, volatility_bps_per_sqrt_s=100.0)
    with pytest.raises(DataError, match=r"price falls to .* on 2024-01-01.*raise data.price"):
        load_ticks(spec)
