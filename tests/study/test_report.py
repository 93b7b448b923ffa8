"""The page of a study: it needs nothing else, trusts nobody, and holds for any study."""

from __future__ import annotations

import re

import polars as pl
import pytest

from hft.space import Space
from hft.study.export import export
from hft.study.figures import draw_all
from hft.study.report import data_line, make_report
from hft.study.trials import trials_frame
from tests.study.small_study import end, every_fate, small_study


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_the_page_needs_nothing_else_and_trusts_nobody(folder):
    study = every_fate(folder)
    results, report = export(study)[0], export(study)[-1]
    assert pl.read_parquet(results).equals(trials_frame(study))
    page = report.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "6 of 20 trials: 4 complete, 1 pruned, 1 failed; 2 retried, 1 running, 1 waiting" in page
    assert "data=synthetic bars=tick" in page
    assert "model=*" in data_line(study)
    assert "Most frequent, 1 of 3: its worker died" in page
    assert "Importances need 10 complete trials, there are 4." in page
    assert page.count("data:image/png") == 3  # history, slices, intermediate values


@pytest.mark.parametrize("ends", [
    [], [()], [(1.0,)], [(1.0,), (2.0,)], [(1.0,)] * 12, [(float("inf"),)] * 12,
], ids=["none", "failed", "one", "two", "alike", "not finite"])  # fmt: skip
@pytest.mark.parametrize("kind", ["tpe", "asha"])
def test_a_study_of_any_shape_has_a_report(folder, ends, kind):
    study = small_study(folder, kind=kind)
    for values in ends:
        end(study, *values, reason="x")
    check_report(study)


def check_report(study):
    drawn = draw_all(study)
    assert not [
        text for text in drawn.values() if isinstance(text, str) and "cannot be drawn" in text
    ]
    assert make_report(study, drawn).endswith("</html>\n")


def test_a_report_without_parameters_and_one_of_a_trial_pruned_at_once(folder):
    study = small_study(folder, space=Space(()))
    for _ in range(12):
        end(study, 1.0, params={})
    check_report(study)
    study = small_study(folder.parent / "other", kind="asha")
    end(study, status="pruned")
    end(study, 1.0)
    check_report(study)
