"""The two kernels against plain loops over lists."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_HOUR
from hft.market.bars._kernel import cut, interval_stops

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)

trades = st.lists(
    st.tuples(
        st.integers(0, 2 * NS_PER_HOUR),
        st.integers(1, 1000).map(lambda k: k / 10),
        st.integers(1, 50).map(lambda k: k / 10),
        st.sampled_from([-1, 0, 1]),
    ),
    max_size=60,
).map(
    lambda rows: [
        (ts, *rest)
        for ts, rest in zip(sorted(r[0] for r in rows), (r[1:] for r in rows), strict=True)
    ]
)
thresholds = st.integers(1, 400).map(lambda k: k / 10)


def naive_cut(rows, stops, hour_threshold, in_quote):
    bars, held = [], []
    for i, row in enumerate(rows):
        if not held and not bars and math.isnan(hour_threshold[row[0] // NS_PER_HOUR]):
            continue
        held.append(row)
        volume = turnover = 0.0
        for _, price, qty, _ in held:
            volume, turnover = volume + qty, turnover + price * qty
        threshold = hour_threshold[held[0][0] // NS_PER_HOUR]
        reached = (turnover if in_quote else volume) >= threshold * (1 - 1e-9)
        if reached or i + 1 in stops:
            bars.append(naive_bar(held, volume, turnover))
            held = []
    return bars


def naive_bar(held, volume, turnover):
    prices = [price for _, price, _, _ in held]
    buy = sell = 0.0
    for _, _, qty, side in held:
        buy, sell = buy + (qty if side > 0 else 0), sell + (qty if side < 0 else 0)
    vwap = min(max(turnover / volume, min(prices)), max(prices))
    values = [prices[0], max(prices), min(prices), prices[-1], vwap, volume, turnover, buy, sell]
    return [held[0][0], held[-1][0], len(held)], values


def arrays(rows):
    ts_recv, price, qty, side = zip(*rows, strict=True) if rows else ([], [], [], [])
    return (
        np.array(ts_recv, np.int64),
        np.array(price, float),
        np.array(qty, float),
        np.array(side, np.int8),
    )


@SETTINGS
@given(trades, thresholds, st.booleans(), st.booleans(), st.sets(st.integers(1, 59)))
def test_cut_equals_its_plain_twin(rows, threshold, in_quote, burn_in, inner_stops):
    stops = [*sorted(s for s in inner_stops if s < len(rows)), len(rows)]
    hourly = np.full(24, threshold * (50 if in_quote else 1))
    hourly[1] *= 2
    hourly[0] = np.nan if burn_in else hourly[0]
    counts, values = cut(*arrays(rows), np.array(stops), hourly, in_quote=in_quote)
    expected = naive_cut(rows, stops, hourly, in_quote)
    assert counts.T.tolist() == [c for c, _ in expected]
    assert values.T.tolist() == [v for _, v in expected]


def test_cut_grows_past_its_first_guess():
    n = 50_000
    rows = np.arange(n), np.linspace(1, 2, n), np.ones(n), np.ones(n, np.int8)
    counts, values = cut(*rows, np.array([n]), np.full(24, 1.0), in_quote=False)
    assert np.array_equal(counts, [np.arange(n), np.arange(n), np.ones(n)])
    assert np.array_equal(values[0], rows[1])


def test_a_sum_of_decimals_reaches_its_decimal_threshold():
    n = 30  # ten times 0.1 is 0.9999999999999999
    counts, _ = cut(
        np.arange(n),
        np.ones(n),
        np.full(n, 0.1),
        np.ones(n, np.int8),
        np.array([n]),
        np.full(24, 1.0),
        in_quote=False,
    )
    assert counts[2].tolist() == [10, 10, 10]


@SETTINGS
@given(
    st.lists(st.integers(0, 300), max_size=50).map(sorted), st.integers(1, 70), st.integers(0, 3)
)
def test_interval_stops_equal_their_plain_twin(ts_recv, size, origin):
    ts_recv = [ts + origin for ts in ts_recv]
    interval = [(ts - origin) // size for ts in ts_recv]
    begins = [i for i in range(len(ts_recv)) if i == 0 or interval[i] != interval[i - 1]]
    assert interval_stops(np.array(ts_recv, np.int64), origin, size).tolist() == [
        *begins,
        len(ts_recv),
    ]
