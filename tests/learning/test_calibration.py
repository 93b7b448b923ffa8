"""Known distortions are found, and what cannot be calibrated stays finite and no worse than it
was.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from hft.learning.calibration import LARGEST, SMALLEST, fit_calibration


def log_loss(z_NC, y_N, temperature=1.0, bias_C=0.0):
    return -log_softmax(z_NC / temperature + bias_C, axis=1)[np.arange(len(y_N)), y_N].mean()


def sample(seed=0, n=40_000, scale=1.0):
    """Honest logits and labels drawn from them."""
    rng = np.random.default_rng(seed)
    z_NC = rng.normal(size=(n, 3)) * scale
    y_N = (rng.random((n, 1)) > softmax(z_NC, axis=1).cumsum(1)).sum(1).clip(0, 2)
    return z_NC, y_N


def test_recovers_a_known_distortion():
    z_NC, y_N = sample()
    bias_C = np.array([0.7, -0.2, -0.5])
    temperature, found_C = fit_calibration((z_NC - bias_C) * 2.5, y_N)
    assert temperature == pytest.approx(2.5, rel=0.03)
    np.testing.assert_allclose(found_C, bias_C, atol=0.04)


def test_honest_logits_stay_as_they_are():
    temperature, bias_C = fit_calibration(*sample())
    assert temperature == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(bias_C, 0, atol=0.03)


def test_is_the_minimum_that_scipy_finds():
    z_NC, y_N = sample(n=500, scale=2.0)

    def objective(v):
        off = v - [1, 0, 0, 0]
        return log_loss(z_NC * v[0] + v[1:], y_N) + off @ off / (2 * len(y_N))

    best = minimize(objective, [1, 0, 0, 0], method="BFGS", options={"gtol": 1e-9})
    temperature, bias_C = fit_calibration(z_NC, y_N)
    np.testing.assert_allclose([1 / temperature, *bias_C], best.x, atol=1e-5)


def test_logits_of_the_wrong_sign_end_as_class_frequencies():
    z_NC, y_N = sample(scale=0.8)
    y_N[:20_000] = 0
    temperature, bias_C = fit_calibration(-z_NC, y_N)
    assert temperature == pytest.approx(1 / SMALLEST)
    shares = np.bincount(y_N) / len(y_N)
    np.testing.assert_allclose(softmax(bias_C), shares, atol=0.01)


def test_logits_far_too_small_stop_at_the_bound():
    z_NC, y_N = sample(n=400_000)
    assert fit_calibration(z_NC * 5e-3, y_N)[0] == pytest.approx(1 / LARGEST)


def test_one_class_stays_finite():
    z_NC = np.random.default_rng(0).normal(size=(1000, 3))
    temperature, bias_C = fit_calibration(z_NC, np.ones(1000, int))
    assert 1 / LARGEST <= temperature <= 1 / SMALLEST
    assert np.abs(bias_C).max() < 10


def test_few_rows_leave_the_identity():
    z_NC, y_N = sample(n=29)
    temperature, bias_C = fit_calibration(z_NC, y_N)
    assert (temperature, *bias_C) == (1, 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(30, 200),
    st.sampled_from([1e-6, 0.1, 1.0, 30.0, 1e4]),
    st.integers(1, 3),
)
def test_never_worse_than_the_identity(seed, n, scale, n_classes):
    rng = np.random.default_rng(seed)
    z_NC, y_N = rng.normal(size=(n, 3)) * scale, rng.integers(0, n_classes, n)
    temperature, bias_C = fit_calibration(z_NC, y_N)
    assert np.isfinite([temperature, *bias_C]).all()
    assert log_loss(z_NC, y_N, temperature, bias_C) <= log_loss(z_NC, y_N)
