"""How far a sweep is: an estimate of the time left, counts, best and the running trials."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hft.study.progress import clock, left_s, progress
from tests.study.small_study import begin, end, every_fate, small_study, wide_study

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def shown(what, *, width=80):
    """What a terminal of that width shows, without the spaces at the ends of lines."""
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(what)
    return "\n".join(line.strip() for line in console.file.getvalue().splitlines())


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return wide_study(tmp_path_factory.mktemp("wide") / "wide")


@pytest.mark.parametrize(
    ("durations", "ages", "n_open", "slots", "expected"),
    [
        ([10, 10], [], 4, 2, 20),
        ([10, 10], [5, 0], 2, 2, 17.5),
        ([10], [12], 0, 4, 0),
        ([10], [1], 0, 4, 9),
        ([10], [1, 1, 1], 3, 1, 19),  # more run than this driver has slots: another works too
        ([], [], 4, 2, None),
        ([], [3], 0, 2, None),
        ([], [], 0, 2, 0),
    ],
)
def test_the_estimate_is_that_of_slots_that_never_wait(durations, ages, n_open, slots, expected):
    assert left_s(durations, ages, n_open=n_open, slots=slots) == expected


def test_durations_read_well():
    assert (clock(0.24), clock(75), clock(90000)) == ("0.2 s", "0:01:15", "1 day, 1:00:00")


def test_the_table_has_counts_best_and_what_runs(folder):
    study = every_fate(folder)
    text = shown(progress(study, slots=2, n_total=20, shares={}, elapsed_s=75.0))
    assert "maker_v1: 6 of 20 done\n" in text
    assert "4 complete, 1 pruned, 1 failed, 2 retried, 1 running, 1 waiting\n" in text
    assert "best log_loss=0.5  maker_v1/0001" in text
    assert "elapsed 0:01:15" in text
    assert "last failure maker_v1/0005: loss is nan" in text
    (row,) = [line for line in text.splitlines() if line.startswith("0007")]
    assert row.split()[:3] == ["0007", "3", "0.66"]
    assert row.split()[3:] == ["tcn", "32", "0.01"]  # what none differs in is not there
    assert max(map(len, text.splitlines())) <= 80


def test_many_running_trials_fit_a_screen(folder):
    study = small_study(folder)
    for _ in range(30):
        begin(study)
    text = shown(progress(study, slots=2, n_total=100, shares={}))
    assert "and 18 more running" in text
    assert len(text.splitlines()) < 40


def test_what_matters_is_the_first_column(wide):
    shares = {"model.x9": 0.9, "model.x3": 0.1}
    begun = begin(wide, {"features": "[a,b]"}, steps={1: 0.5})
    text = shown(progress(wide, slots=1, n_total=40, shares=shares))
    end(wide, number=begun, reason="over")
    (header,) = [line.split() for line in text.splitlines() if line.startswith("running")]
    assert header[:5] == ["running", "step", "value", "x9", "x3"]


def test_the_live_screen_keeps_each_fact_to_one_line(tmp_path):
    study = small_study(tmp_path / ("a" * 64), objectives=TWO)
    for k in range(3):
        end(study, float(k), float(k))
    end(study, reason="loss is nan at step 12, " * 9)
    text = shown(progress(study, slots=2, n_total=1000, shares={}, elapsed_s=75.0))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == [
        f"{'a' * 64}:", "3", "best", "best", "best", "last", "elapsed"
    ]  # fmt: skip
    assert lines[5].endswith("…")
    whole = shown(progress(study, slots=2, n_total=1000, shares={}, in_place=False))
    assert "…" not in whole
