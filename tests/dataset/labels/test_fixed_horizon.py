from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_MS
from hft.dataset.labels import build_labels
from hft.schema import BUY, HOLD, SELL
from tests.dataset.labels.hand import label_spec, market, markets
from tests.dataset.labels.naive import naive_fixed, rows


def spec(**changes):
    return label_spec(
        "fixed_horizon", **{"horizon": 2, "threshold_bps": 10.0, "latency_ms": 0.0} | changes
    )


@settings(deadline=None, derandomize=True)
@given(
    markets(),
    st.integers(1, 5),
    st.sampled_from([0.0, 1.0, 3.0, 20.0]),
    st.sampled_from([0.0, 10.0, 25.0]),
)
def test_equals_reading_every_print(scene, horizon, latency_ms, threshold_bps):
    ticks, bars = scene
    label = spec(horizon=horizon, latency_ms=latency_ms, threshold_bps=threshold_bps)
    latency_ns = round(latency_ms * NS_PER_MS)
    expected = [
        naive_fixed(ticks, bars, t, horizon, latency_ns, threshold_bps) for t in range(bars.height)
    ]
    assert rows(build_labels(ticks, bars, label)) == expected


@pytest.mark.parametrize(
    ("last", "y", "ret_bps"),
    [(102.0, BUY, 200.0), (101.0, HOLD, 100.0), (99.0, HOLD, -100.0), (98.9, SELL, -110.0)],
)
def test_only_a_return_beyond_the_threshold_is_a_side_whatever_came_between(last, y, ret_bps):
    # Decision at 0 ms, entry at the next print, 100; the threshold itself does not count.
    ticks, bars = market([[(0, 90.0)], [(10, 100.0), (11, 150.0)], [(20, 50.0), (21, last)]])
    got = rows(build_labels(ticks, bars, spec(threshold_bps=100.0 + 1e-9)))[0]
    assert got == (y, 21 * NS_PER_MS, pytest.approx(ret_bps))


def test_its_trades_have_no_barriers():
    _, bars = market([[(0, 100.0)], [(1, 101.0)]])
    exits = spec().exits(bars)
    assert exits.horizon == 2
    np.testing.assert_array_equal(exits.take_profit, [np.inf] * 2)
    np.testing.assert_array_equal(exits.stop_loss, [np.inf] * 2)
