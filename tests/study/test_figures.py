"""Figures of studies of any shape, in which what matters comes first and no label is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft.space import Dimension, Space
from hft.study import figures
from hft.study.figures import FIGURES, MAX_PANELS, draw_all, plot_slices
from hft.study.report import make_report
from tests.study.small_study import end, small_study

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


@pytest.mark.parametrize("objectives", [("select/log_loss",), TWO])
def test_figures_of_a_conditional_space(folder, objectives):
    study = small_study(folder, objectives=objectives)
    for k in range(24):
        model = {"model": "tcn", "model.channels": 4 + k} if k % 2 else {"model": "mlp"}
        end(
            study,
            *[float(k), float(-k)][: len(objectives)],
            params={**model, "optim.lr": 1e-3 * 1.2**k, "seed": 7},
        )
    drawn = draw_all(study)
    assert list(drawn) == list(FIGURES)
    texts = {title: figure for title, figure in drawn.items() if isinstance(figure, str)}
    assert texts == {"Intermediate values": ""} | (
        {"Pareto front": ""} if len(objectives) == 1 else {}
    )
    axes = drawn["Importances"].axes[0]
    shares = dict(
        zip([label.get_text() for label in axes.get_yticklabels()], axes.patches, strict=False)
    )
    assert shares["seed"].get_width() == 0  # a constant
    assert shares["optim.lr"].get_width() > 0


def test_a_report_of_twenty_parameters_has_the_important_ones_first(folder):
    numbers = [Dimension(f"model.x{k}", low=0.0, high=1.0) for k in range(MAX_PANELS + 2)]
    study = small_study(folder, space=Space(tuple(numbers)))
    for k in range(30):
        noise = {d.path: (k * (7 + i) % 37) / 37 for i, d in enumerate(numbers)}
        end(study, k / 30, params={**noise, "model.x9": k / 30})
    figure = plot_slices(study)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == MAX_PANELS
    assert shown[0].get_title(loc="left") == "model.x9"
    assert figure.get_supxlabel() == "2 less important parameters left out"
    assert figure.get_supylabel() == "select/log_loss"
    rows = make_report(study, {}).split("<tr>")[2:]
    assert all('<td class="t">model.x9=' in row for row in rows)


def test_no_label_is_cut(folder):
    long = ("features_of_a_long_name." * 5, "[ofi,kyle_lambda,amihud,roll,kalman_deviation]", "c")
    name = "features.some_family_with_a_long_name.parameter_of_it"
    choice = Dimension(name, choices=long, texts=long)
    study = small_study(folder, space=Space((choice,)))
    for k in range(6):
        end(study, k / 6, params={name: long[k % 3]})
    figure = plot_slices(study)
    axes = figure.axes[0]
    labels = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert sorted(labels) == sorted(long)
    assert axes.get_title(loc="left").replace("\n", "") == name
    figure.draw_without_rendering()
    page = figure.bbox
    for label in [*axes.get_xticklabels(), axes.title, axes._left_title]:
        box = label.get_window_extent()
        assert box.x0 >= page.x0 - 1, label
        assert box.y0 >= page.y0 - 1, label
        assert box.x1 <= page.x1 + 1, label


def test_a_drawing_that_fails_is_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(FIGURES, "History", lambda study: 1 / 0)
    drawn = draw_all(small_study(folder))
    assert drawn["History"] == "It cannot be drawn: ZeroDivisionError: division by zero"


def test_nothing_is_drawn_through_pyplot():
    source = Path(figures.__file__).read_text()
    assert "import matplotlib.pyplot" not in source
