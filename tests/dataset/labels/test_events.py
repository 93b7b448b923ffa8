from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.labels import Events, build_labels
from tests.dataset.labels.hand import label_spec, market, markets
from tests.dataset.labels.test_volatility import naive_volatility


def events(**changes):
    return Events(**{"every": 1, "cusum": 0.0, "span": 2} | changes)


def naive_events(close, segment, chosen):
    """Every bar afresh from the beginning of its segment."""
    sigma = naive_volatility(close, segment, chosen.span)
    out = []
    for t in range(len(close)):
        up = down = 0.0
        seen = []
        for i in range(segment.index(segment[t]), t + 1):
            is_first = i == segment.index(segment[t])
            if not chosen.cusum:
                seen.append(True)
                continue
            if is_first or math.isnan(sigma[i - 1]) or sigma[i - 1] == 0:
                seen.append(False)
                continue
            r, h = math.log(close[i] / close[i - 1]), chosen.cusum * sigma[i - 1]
            up, down = max(0.0, up + r), min(0.0, down + r)
            crossed_up, crossed_down = up >= h, up < h and down <= -h
            up, down = 0.0 if crossed_up else up, 0.0 if crossed_down else down
            seen.append(crossed_up or crossed_down)
        out.append(seen[-1] and (sum(seen) - 1) % chosen.every == 0)
    return out


@settings(deadline=None, derandomize=True, max_examples=200)
@given(markets(), st.integers(1, 3), st.sampled_from([0.0, 0.7, 1.5]), st.integers(1, 2))
def test_equals_counting_each_bar_from_the_start_of_its_segment(scene, every, cusum, span):
    _, bars = scene
    chosen = events(every=every, cusum=cusum, span=span)
    expected = naive_events(bars["close"].to_list(), bars["segment"].to_list(), chosen)
    assert chosen.pick(bars).tolist() == expected


def test_every_bar_and_every_third():
    _, bars = market([[(i, 100.0)] for i in range(8)], gaps_ms=[4])
    assert events().pick(bars).all()
    # Counting starts anew with the segment of bar 4.
    assert np.flatnonzero(events(every=3).pick(bars)).tolist() == [0, 3, 4, 7]


def test_cusum_waits_for_the_sum_and_starts_anew():
    # Returns of +-1 % make sigma 1 % (span 1: the last return alone): two ups in a row reach 2
    # sigmas.
    close = np.exp(np.cumsum([0.0, 0.01, 0.01, 0.01, 0.01, -0.01, -0.01, 0.01]))
    _, bars = market([[(i, price)] for i, price in enumerate(close)])
    # Sigma is known from bar 2 on, so bars 3 and 4 add up, 5 and 6 down.
    assert np.flatnonzero(events(cusum=2.0 - 1e-9, span=1).pick(bars)).tolist() == [4, 6]
    assert np.flatnonzero(events(cusum=2.0 + 1e-9, span=1).pick(bars)).tolist() == []


def test_a_jump_is_measured_by_the_sigma_before_it():
    close = np.exp(np.cumsum([0.0, 0.001, -0.001, 0.001, 0.05]))
    _, bars = market([[(i, price)] for i, price in enumerate(close)])
    assert np.flatnonzero(events(cusum=10.0, span=1).pick(bars)).tolist() == [4]


def test_a_price_that_never_moved_is_no_event():
    _, bars = market([[(i, 100.0)] for i in range(8)])
    assert not events(cusum=1.0, span=1).pick(bars).any()


@pytest.mark.parametrize("kind", ["triple_barrier", "fixed_horizon"])
def test_bars_that_are_no_event_keep_their_row_without_a_label(kind):
    ticks, bars = market([[(i, 100.0 + i % 3)] for i in range(30)])
    short = {"horizon": 3, "latency_ms": 0.0} | ({"span": 2} if kind == "triple_barrier" else {})
    full = build_labels(ticks, bars, label_spec(kind, **short))
    spec = label_spec(kind, **short, events={"every": 4, "cusum": 0.0, "span": 1})
    labels = build_labels(ticks, bars, spec)
    chosen = np.arange(30) % 4 == 0
    assert labels["bar"].equals(full["bar"])
    assert labels.filter(chosen).equals(full.filter(chosen))
    assert labels.filter(~chosen)["y"].is_null().all()
    assert (spec.offered(bars).any(axis=1) == chosen).all()
