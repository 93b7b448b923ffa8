"""Class metrics and curves against loops, closed forms and hand values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.statistics import classes


def forecasts(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(3), n), rng.integers(0, 3, n)


def test_confusion_by_hand():
    y, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    counts = classes.confusion(y, predicted)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert classes.accuracy(counts) == pytest.approx(4 / 6)
    precision, recall = classes.precision_recall(counts)
    assert precision.tolist() == [0.5, 0.5, 1.0]
    assert recall == pytest.approx([0.5, 1.0, 2 / 3])
    assert classes.macro_f1(counts) == pytest.approx((0.5 + 2 / 3 + 0.8) / 3)


def test_a_class_without_rows_counts_zero():
    counts = classes.confusion(np.array([0, 0, 1]), np.array([0, 0, 1]))
    assert classes.macro_f1(counts) == pytest.approx(2 / 3)
    assert classes.matthews(classes.confusion(np.array([0, 0]), np.array([0, 1]))) == 0.0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_matthews_is_the_correlation_of_the_indicators(seed, n):
    """Gorodkin's definition: covariance of the one-hot matrices, summed over classes, over their
    norms.
    """
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, 3, n), rng.integers(0, 3, n)
    a, b = np.eye(3)[y], np.eye(3)[predicted]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = math.sqrt((a * a).sum() * (b * b).sum())
    want = (a * b).sum() / norm if norm > 1e-12 else 0.0
    assert classes.matthews(classes.confusion(y, predicted)) == pytest.approx(want, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_scores_against_loops(seed, n):
    p, y = forecasts(n, seed=seed)
    assert classes.log_losses(p, y) == pytest.approx([-math.log(p[i][y[i]]) for i in range(n)])
    assert classes.brier(p, y) == pytest.approx(
        sum((p[i][c] - (c == y[i])) ** 2 for i in range(n) for c in range(3)) / n
    )
    gap = 0.0
    for k in range(15):
        inside = [
            i
            for i in range(n)
            if k / 15 <= max(p[i]) < (k + 1) / 15 or (k == 14 and max(p[i]) == 1)
        ]
        gap += abs(sum((np.argmax(p[i]) == y[i]) - max(p[i]) for i in inside)) / n
    assert classes.calibration_error(p, y) == pytest.approx(gap)


def test_certain_and_wrong_is_finite():
    assert classes.log_losses(np.array([[1.0, 0.0, 0.0]]), np.array([1]))[0] == pytest.approx(
        -math.log(1e-12)
    )


def test_metrics_stand_beside_the_majority():
    y = np.repeat([0, 1, 2], [60, 20, 20])
    prior = np.array([0.6, 0.2, 0.2])
    metrics = classes.classification_metrics(np.tile(prior, (100, 1)), y, prior_C=prior)
    entropy = scipy.stats.entropy(prior)
    assert (
        metrics["log_loss"] == pytest.approx(metrics["majority_log_loss"]) == pytest.approx(entropy)
    )
    assert metrics["accuracy"] == metrics["majority_accuracy"] == 0.6
    assert metrics["macro_f1"] == metrics["majority_macro_f1"] == pytest.approx(0.25)
    assert metrics["mcc"] == 0.0
    assert metrics["calibration_error"] == pytest.approx(0.0)
    assert metrics["recall_hold"] == 1.0
    assert metrics["recall_sell"] == 0.0
    assert classes.classification_metrics(np.empty((0, 3)), np.empty(0, int), prior_C=prior) == {}


def test_skill_shows_as_an_interval_below_zero():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 2000)
    third = np.full(3, 1 / 3)
    skilled = np.where(np.eye(3)[y] == 1, 0.4, 0.3)
    gain = classes.log_loss_excess(skilled, y, prior_C=third, seed=0, min_block=50)
    assert gain.mean == pytest.approx(math.log(1 / 3) - math.log(0.4))
    assert gain.high < 0
    noise = rng.dirichlet(np.full(3, 300), 2000)
    unskilled = classes.log_loss_excess(noise, y, prior_C=third, seed=0)
    assert unskilled.low < 0 < unskilled.high or unskilled.low > 0


def naive_average_precision(score, came):
    """Threshold by threshold: everything at or above it is called; steps of recall weigh the
    precision.
    """
    area, before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        called = [c for s, c in zip(score, came, strict=True) if s >= threshold]
        recall = sum(called) / max(sum(came), 1)
        area += (recall - before) * sum(called) / len(called)
        before = recall
    return area


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), levels=st.sampled_from([1, 2, 5, 10**6]))
def test_average_precision_against_loops(seed, n, levels):
    rng = np.random.default_rng(seed)
    score, came = rng.integers(0, levels, n) / levels, rng.random(n) < 0.4
    assert classes.average_precision(score, came) == pytest.approx(
        naive_average_precision(score, came)
    )


def test_average_precision_by_hand():
    came = np.array([True, False, True, False])
    assert classes.average_precision(np.array([0.9, 0.8, 0.7, 0.1]), came) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )
    assert (
        classes.average_precision(np.full(4, 0.3), came) == 0.5
    )  # says nothing: the share of rows
    assert classes.average_precision(np.full(4, 0.3), np.zeros(4, bool)) == 0.0


def test_pr_curve_ends_at_full_recall_and_the_share_of_rows():
    p, y = forecasts(200)
    curve = classes.pr_curve(p[:, 1], y == 1)
    assert (np.diff(curve.recall_K) >= 0).all()
    assert curve.recall_K[-1] == 1
    assert curve.precision_K[-1] == pytest.approx((y == 1).mean())


def test_reliability_of_an_honest_forecast_is_the_diagonal():
    rng = np.random.default_rng(0)
    forecast = rng.random(200_000)
    bins = classes.reliability(forecast, rng.random(200_000) < forecast, n_bins=10)
    np.testing.assert_allclose(bins.forecast_K, np.arange(0.05, 1, 0.1), atol=0.005)
    np.testing.assert_allclose(bins.share_K, bins.forecast_K, atol=0.01)
    assert bins.rows_K.sum() == 200_000


def test_reliability_leaves_empty_bins_out_and_counts_certainty():
    bins = classes.reliability(
        np.array([0.0, 1.0, 0.95]), np.array([False, True, False]), n_bins=10
    )
    assert bins.rows_K.tolist() == [1, 2]
    assert bins.share_K.tolist() == [0.0, 0.5]
    assert bins.forecast_K == pytest.approx([0.0, 0.975])


def test_coverage_accuracy_by_hand():
    confidence = np.array([0.5, 0.9, 0.8, 0.6])
    p = np.stack([1 - confidence, confidence, np.zeros(4)], axis=1)
    curve = classes.coverage_accuracy(
        p, np.array([0, 1, 2, 1]), prior_C=np.array([0.6, 0.3, 0.1]), n_points=4
    )
    assert curve.coverage_K.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.accuracy_K == pytest.approx(
        [1, 1 / 2, 2 / 3, 3 / 4]
    )  # at one half, hold and buy tie: hold is called
    assert curve.majority_accuracy_K == pytest.approx([0, 0, 0, 1 / 4])
    full = classes.coverage_accuracy(p[:1], np.array([0]), prior_C=np.array([0.6, 0.3, 0.1]))
    assert full.coverage_K.tolist() == [1.0] * 20


def test_every_score_has_the_majority_beside_it():
    p, y = forecasts(100)
    prior = np.array([0.2, 0.5, 0.3])
    metrics = classes.classification_metrics(p, y, prior_C=prior)
    own = classes.scores(p, y)
    assert set(metrics) == set(own) | {f"majority_{name}" for name in own}
    for c, name in enumerate(("hold", "buy", "sell")):
        assert metrics[f"majority_pr_auc_{name}"] == pytest.approx((y == c).mean())
        assert metrics[f"majority_recall_{name}"] == (c == 1)
    assert metrics["majority_precision_buy"] == pytest.approx((y == 1).mean())
