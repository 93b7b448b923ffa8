"""Figures: what was given is what is drawn, at the sizes and in the corner cases that runs have."""

from __future__ import annotations

import numpy as np
import pytest

from hft.report.figures import (
    MAX_BARS,
    MAX_POINTS,
    plot_confusion,
    plot_coverage,
    plot_gates,
    plot_importance,
    plot_pr_curves,
    plot_reliability,
)
from hft.schema import CLASS_NAMES
from hft.statistics.classes import Coverage, coverage_accuracy, pr_curve, reliability
from hft.tracking.tracker import png


def forecast(n, seed=0):
    rng = np.random.default_rng(seed)
    p_N3 = rng.dirichlet((2, 1, 1), n)
    return p_N3, (rng.random((n, 1)) > p_N3.cumsum(1)).sum(1)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_shows_counts_and_shares_of_the_true_class():
    figure = plot_confusion(np.array([[6000, 2000, 0], [1, 3, 0], [0, 0, 0]]), title="t")
    (axes,) = figure.axes
    assert texts(axes)[:2] == ["75.0%\n6,000", "25.0%\n2,000"]
    assert texts(axes)[-1] == "0.0%\n0"  # a class without rows
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "hold\n8,000",
        "buy\n4",
        "sell\n0",
    ]
    assert png(figure)


def test_pr_curves_are_thinned_with_their_ends_and_the_share_of_each_class():
    p_N3, y_N = forecast(5000)
    curves = {name: pr_curve(p_N3[:, c], y_N == c) for c, name in enumerate(CLASS_NAMES)}
    figure = plot_pr_curves(curves, averages=dict.fromkeys(CLASS_NAMES, 0.5), title="t")
    lines = figure.axes[0].lines
    for c, (curve, dotted) in enumerate(zip(lines[::2], lines[1::2], strict=True)):
        recall, precision = curve.get_data()
        assert len(recall) <= MAX_POINTS
        assert (recall[0], recall[-1]) == (curves[CLASS_NAMES[c]].recall_K[0], 1.0)
        assert precision[-1] == dotted.get_ydata()[0] == pytest.approx((y_N == c).mean())
    assert png(figure)


def test_reliability_shows_both_forecasts_and_where_the_rows_are():
    p_N3, y_N = forecast(2000)
    sharp_N3 = p_N3**3 / (p_N3**3).sum(1, keepdims=True)
    found = {
        n: reliability(p.max(1), p.argmax(1) == y_N)
        for n, p in {"before": sharp_N3, "after": p_N3}.items()
    }
    figure = plot_reliability(found, errors={"before": 0.2, "after": 0.01}, title="t")
    above, below = figure.axes
    _, before, after = above.lines  # the diagonal first
    np.testing.assert_array_equal(before.get_data(), found["before"][:2])
    np.testing.assert_array_equal(after.get_data(), found["after"][:2])
    assert below.lines[0].get_ydata().sum() == pytest.approx(1)
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["before: calibration error 0.200", "after: calibration error 0.010"]
    assert png(figure)


def test_coverage_stands_beside_the_majority():
    p_N3, y_N = forecast(300)
    curve = coverage_accuracy(p_N3, y_N, prior_C=np.array([0.5, 0.3, 0.2]))
    model, majority = plot_coverage(curve, title="t").axes[0].lines
    np.testing.assert_array_equal(model.get_ydata(), curve.accuracy_K)
    np.testing.assert_array_equal(majority.get_ydata(), curve.majority_accuracy_K)
    assert png(plot_coverage(Coverage(*np.ones((3, 1))), title="one point"))


def test_gates_are_their_mean_and_the_change_from_it():
    gates_LKH = np.random.default_rng(0).random((2, 5, 4))
    figure = plot_gates(gates_LKH, np.arange(5) * 3_600_000_000_000, title="t")
    left, right = figure.axes[2:4]  # of the second block
    mean, change = left.images[0].get_array(), right.images[0].get_array()
    np.testing.assert_allclose(mean + change, gates_LKH[1].T)
    assert png(figure)
    assert png(plot_gates(np.full((1, 1, 3), 0.5), np.zeros(1, int), title="all gates alike"))


def test_importance_has_the_largest_on_top_and_says_what_is_left_out():
    rises = {f"feature_{k}": k / 1000 for k in range(-3, MAX_BARS)}
    (axes,) = plot_importance(rises, title="t").axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == MAX_BARS
    assert (names[0], names[-1]) == ("feature_-3", f"feature_{MAX_BARS - 1}")
    assert "feature_0" not in names
    assert axes.get_xlabel().endswith("3 smaller ones left out")
    assert png(plot_importance({"only": 0.0}, title="t"))
