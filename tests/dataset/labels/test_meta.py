from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_MS
from hft.dataset.labels import LabelError, build_labels, label_bars, random_walk_shares, restrict
from hft.schema import BUY, HOLD, SELL
from hft.spec import SpecError
from tests.dataset.labels.hand import label_spec, market, markets
from tests.dataset.labels.naive import naive_path, rows


def primary(**changes):
    return {"signal": "return", "window": 1, "threshold": 0.0, "direction": "follow"} | changes


def spec(**changes):
    """A floor of 100 bps is the distance of both barriers, unless a test asks for widths."""
    small = {
        "horizon": 3,
        "width": 1e-6,
        "floor_bps": 100.0,
        "span": 1,
        "latency_ms": 0.0,
        "primary": primary(),
    }
    return label_spec("meta", **small | changes)


def naive_meta(ticks, bars, t, label, side, tp, sl):
    """(y, t_end, ret_bps) of the primary's own trade at bar t, read print by print."""
    found = naive_path(ticks, bars, t, label.horizon, round(label.latency_ms * NS_PER_MS))
    if found is None or side == 0 or math.isnan(tp):
        return None
    entry, path = found
    up, down = (tp, sl) if side > 0 else (sl, tp)
    for ts, _, price in path:
        if price >= entry * (1 + up) or price <= entry * (1 - down):
            won = (price >= entry * (1 + up)) == (side > 0)
            return (BUY if side > 0 else SELL) if won else HOLD, ts, (price / entry - 1) * 1e4
    return HOLD, bars["ts"][t + label.horizon], (path[-1][2] / entry - 1) * 1e4


def naive_side(values, segment, t, chosen):
    n = chosen.window if chosen.signal == "return" else chosen.window - 1
    if t < n or segment[t - n] != segment[t]:
        return 0
    window = values[t - n : t + 1]
    if any(v is None for v in window):
        return 0
    v = (
        math.log(window[-1] / window[0]) * 1e4
        if chosen.signal == "return"
        else sum(window) / len(window)
    )
    side = (v > chosen.threshold) - (v < -chosen.threshold)
    return side if chosen.direction == "follow" else -side


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    markets(),
    st.integers(1, 5),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([(0.6, 0.6), (0.6, 1.5), (1.5, 0.6)]),
    st.sampled_from(
        [("return", 1, "follow"), ("return", 3, "fade"), ("flow", 1, "follow"), ("flow", 2, "fade")]
    ),
    st.integers(0, 2**31),
)
def test_equals_reading_every_print_of_the_primarys_trade(
    scene, horizon, latency_ms, widths, rule, seed
):
    ticks, bars = scene
    rng = np.random.default_rng(seed)
    flow = [None if rng.random() < 0.1 else float(v) for v in rng.integers(-3, 4, bars.height)]
    bars = bars.with_columns(flow=pl.Series(flow, dtype=pl.Float32))
    signal, window, direction = rule
    chosen = primary(signal=signal, window=window, direction=direction, threshold=1.0)
    numbers = {"horizon": horizon, "latency_ms": latency_ms, "width": widths[0], "sl": widths[1]}
    label = spec(**numbers, floor_bps=10.0, primary=chosen)
    values = bars["close" if signal == "return" else "flow"].to_list()
    segment = bars["segment"].to_list()
    sides = [naive_side(values, segment, t, label.primary) for t in range(bars.height)]
    exits = label.exits(bars)
    expected = [
        naive_meta(ticks, bars, t, label, sides[t], exits.take_profit[t], exits.stop_loss[t])
        for t in range(bars.height)
    ]
    assert label.primary.sides(bars).tolist() == sides
    assert rows(build_labels(ticks, bars, label)) == expected


def test_take_it_leave_it_and_no_decision():
    # Up, up, flat, down: buys at bars 2 and 3, none at bar 4, a sell at bar 5; each with three bars
    # to go.
    path = [100.0, 100.1, 100.2, 100.3, 100.3, 100.2, 100.2, 101.6, 101.6]
    ticks, bars = market([[(10 * i, price)] for i, price in enumerate(path)])
    got = rows(build_labels(ticks, bars, spec(horizon=3)))
    assert got[2][0] == HOLD  # entered at bar 3, expired at bar 5
    assert got[4] is None
    assert got[5] == (
        HOLD,
        70 * NS_PER_MS,
        pytest.approx((101.6 / 100.2 - 1) * 1e4),
    )  # short, entered at bar 6, stopped
    # The same decision taken the other way round wins.
    fade = rows(build_labels(ticks, bars, spec(horizon=3, primary=primary(direction="fade"))))
    assert fade[5][:2] == (BUY, 70 * NS_PER_MS)


def test_a_decision_offers_hold_and_the_primarys_side():
    _, bars = market([[(i, price)] for i, price in enumerate([100.0, 101.0, 100.0, 100.0])])
    offered = spec().offered(bars)
    assert offered.tolist() == [[False] * 3, [True, True, False], [True, False, True], [False] * 3]


def test_probabilities_are_given_that_the_class_is_on_offer():
    p = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [0.2, 0.3, 0.5], [np.nan] * 3])
    offered = np.array([[True, True, False], [True, False, True], [False] * 3, [True] * 3])
    got = restrict(p, offered)
    np.testing.assert_allclose(got[:2], [[0.4, 0.6, 0.0], [2 / 7, 0.0, 5 / 7]])
    assert np.isnan(got[2:]).all()
    assert restrict(p, np.ones((4, 3), bool)) is p


def test_a_feature_may_be_the_primary():
    ticks, bars = market([[(10 * i, 100.0 + 0.1 * (i % 3))] for i in range(12)])
    features = pl.DataFrame(
        {"bar": bars["bar"], "ofi": pl.Series([None, 1.0, -1.0] * 4, dtype=pl.Float32)}
    )
    label = spec(primary=primary(signal="ofi"))
    assert label.columns == ("ofi",)
    known = label_bars(bars, features, label)
    assert label.primary.sides(known).tolist() == [0, 1, -1] * 4
    assert build_labels(ticks, known, label)["y"].is_not_null().sum() > 0
    assert all(math.isnan(share) for share in random_walk_shares(bars, label, seed=0).values())
    with pytest.raises(
        LabelError, match=r"reads the feature 'ofi', which `features` does not have; it has flow"
    ):
        label_bars(bars, features.rename({"ofi": "flow"}), label)
    with pytest.raises(
        LabelError, match=r"labels.primary.signal: must be 'return' or a column .* got 'ofi'"
    ):
        build_labels(ticks, bars, label)


def test_a_bar_column_and_the_return_need_no_feature():
    _, bars = market([[(i, 100.0)] for i in range(3)])
    for signal in ("return", "buy_volume"):
        label = spec(primary=primary(signal=signal))
        assert label.columns == ()
        assert label_bars(bars, bars.select("bar"), label).equals(bars)


def test_the_primary_of_a_walk_wins_as_often_as_it_loses():
    _, bars = market([[(1000 * i, 100.0 * math.exp(3e-4 * (i % 2)))] for i in range(101)])
    label = label_spec(
        "meta", horizon=20, latency_ms=0.0, floor_bps=0.0, span=1000, primary=primary(window=5)
    )
    shares = random_walk_shares(bars, label, seed=0)
    assert shares["buy"] == pytest.approx(shares["sell"], abs=0.03)
    assert 0.2 < shares["buy"] + shares["sell"] < 0.5  # one of two trades of each decision, at most


def test_mistakes_in_the_primary_are_refused():
    with pytest.raises(SpecError, match=r"primary.direction: must be 'follow' or 'fade', got 'up'"):
        spec(primary=primary(direction="up"))
    with pytest.raises(
        SpecError, match=r"primary.windw: Primary has no such field, did you mean 'window'"
    ):
        spec(primary=primary(windw=3))
