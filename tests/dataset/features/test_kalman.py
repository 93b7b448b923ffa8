"""The local level against a plain twin, its steady state, a planted level, and how it forgets."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.features import build_features
from hft.dataset.features.kalman import local_level
from tests.dataset.features.market import feature

cells = st.integers(-100, 100).map(lambda k: k / 10)
variances = st.one_of(st.integers(0, 30).map(lambda k: k / 10), st.just(float("nan")))


def naive_filter(y, noise, drift):
    out, state = [], None
    for value, r, q in zip(y, noise, drift, strict=True):
        if math.isnan(r):
            state = None
            out.append((math.nan, math.nan))
        elif state is None:
            state = value, r
            out.append((math.nan, math.nan))
        else:
            a, p = state[0], state[1] + q
            f = p + r
            k = p / f if f else 1.0
            innovation = (value - a) / math.sqrt(f) if f else math.nan
            a += k * (value - a)
            state = a, p * (1 - k)
            out.append((value - a, innovation))
    return np.array(out).reshape(-1, 2).T


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(cells, variances, variances), max_size=30))
def test_filter_equals_its_plain_twin(rows):
    y, noise, drift = np.array(rows, float).reshape(-1, 3).T
    drift = np.where(np.isnan(drift), 1.0, drift)
    for found, expected in zip(
        local_level(y, noise, drift), naive_filter(y, noise, drift), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_first_prediction_has_variance_r_plus_q():
    r, q = 4.0, 1.0
    deviation, innovation = local_level(np.array([0.0, 3.0]), np.full(2, r), np.full(2, q))
    assert innovation[1] == pytest.approx(3 / math.sqrt(r + q + r))
    assert deviation[1] == pytest.approx(3 * r / (r + q + r))


def test_gain_settles_at_its_closed_form():
    r, q = 4.0, 1.0
    step = np.concatenate([np.zeros(100), [1.0]])
    deviation, innovation = local_level(step, np.full(101, r), np.full(101, q))
    ratio = q / r
    gain = (math.sqrt(ratio**2 + 4 * ratio) - ratio) / 2
    assert deviation[100] == pytest.approx(1 - gain, rel=1e-12)
    assert innovation[100] == pytest.approx(math.sqrt((1 - gain) / r), rel=1e-12)


def noisy_level(n, *, noise_sd, drift_sd, seed=0):
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.normal(0, drift_sd, n))
    close = 60_000 * np.exp((level + rng.normal(0, noise_sd, n)) / 1e4)
    return level, pl.DataFrame({"close": close, "segment": 0})


def test_variances_are_found_from_the_returns():
    _, frame = noisy_level(20_000, noise_sd=2.0, drift_sd=1.0)
    noise, drift = feature(kind="kalman_deviation", span=10_000, min_share=0.01).variances(frame)
    assert noise[-1] == pytest.approx(4.0, rel=0.1)
    assert drift[-1] == pytest.approx(1.0, rel=0.2)


def test_variances_know_only_earlier_returns():
    _, frame = noisy_level(100, noise_sd=1.0, drift_sd=1.0)
    spec = feature(kind="kalman_deviation", span=10, min_share=0.1)
    returns = np.diff(np.log(frame["close"].to_numpy()) * 1e4)
    noise, drift = spec.variances(frame)
    assert np.isnan(noise[:2]).all()
    assert noise[2] + drift[2] + noise[2] == pytest.approx(returns[0] ** 2)
    other = frame.with_columns(
        close=pl.when(pl.int_range(pl.len()) >= 50).then(1.0).otherwise("close")
    )
    assert np.array_equal(spec.variances(other)[0][:51], noise[:51], equal_nan=True)


def test_filtered_level_is_nearer_to_the_truth_than_the_price():
    level, frame = noisy_level(5000, noise_sd=3.0, drift_sd=1.0)
    spec = feature(kind="kalman_deviation", span=1000, min_share=0.05)
    deviation = spec.column(frame).to_numpy()
    price = np.log(frame["close"].to_numpy() / 60_000) * 1e4
    warm = slice(spec.warmup, None)
    assert np.std((price - deviation - level)[warm]) < 0.7 * np.std((price - level)[warm])


def test_innovations_are_standardised():
    _, frame = noisy_level(5000, noise_sd=3.0, drift_sd=1.0)
    innovation = (
        feature(kind="kalman_innovation", span=1000, min_share=0.05).column(frame).drop_nulls()
    )
    assert innovation.std() == pytest.approx(1.0, abs=0.05)
    assert abs(innovation.mean()) < 0.05


@pytest.mark.parametrize("kind", ["kalman_deviation", "kalman_innovation"])
@pytest.mark.parametrize(("span", "min_share"), [(10, 0.1), (40, 0.1), (40, 0.01), (200, 0.5)])
def test_after_the_warm_up_the_start_weighs_under_one_per_cent(kind, span, min_share):
    """Two histories that differ in their first price only, by ten times a bar's usual move."""
    spec = feature(kind=kind, span=span, min_share=min_share)
    # Bounce strong enough to drive the gain to its slowest.
    _, frame = noisy_level(spec.warmup + 50, noise_sd=3.0, drift_sd=0.3)
    first = pl.int_range(pl.len()) == 0
    shifted = frame.with_columns(
        close=pl.when(first).then(pl.col("close") * math.exp(30e-4)).otherwise("close")
    )
    found, other = spec.column(frame), spec.column(shifted)
    assert found.null_count() == other.null_count() == spec.warmup
    start = 30 if kind == "kalman_deviation" else 30 / 3
    assert (found - other).abs().max() < 0.01 * start


def test_a_segment_starts_anew():
    _, frame = noisy_level(400, noise_sd=1.0, drift_sd=1.0)
    spec = feature(kind="kalman_innovation", span=10, min_share=0.1)
    split = frame.with_columns(segment=(pl.int_range(pl.len()) >= 200).cast(pl.Int64))
    alone = spec.column(frame[200:])
    assert spec.column(split)[200:].equals(alone)


def test_a_price_that_never_moved_has_no_innovation():
    frame = pl.DataFrame({"close": [60_000.0] * 300, "segment": 0})
    bars = frame.with_columns(pl.int_range(pl.len()).alias("bar"), pl.lit(60_000.0).alias("bid"))
    specs = {
        "deviation": feature(kind="kalman_deviation", span=10, min_share=0.1),
        "innovation": feature(kind="kalman_innovation", span=10, min_share=0.1),
    }
    found = build_features(bars, bars.select("bar"), specs)
    assert found["innovation"].is_null().all()
    assert found["deviation"].drop_nulls().unique().to_list() == [0.0]
