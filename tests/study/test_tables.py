"""The results of a study in the terminal: best first, every digit, the line to paste at the end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hft.space import Dimension, Space
from hft.study.tables import LONGEST_CELL, N_RESULTS, brief_number, print_results
from tests.study.small_study import POINT, end, every_fate, small_study, wide_study

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def results(study, *, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    print_results(study, console=console)
    return "\n".join(line.strip() for line in console.file.getvalue().splitlines())


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return wide_study(tmp_path_factory.mktemp("wide") / "wide")


def test_results_are_best_first_and_end_with_the_line_to_paste(folder):
    lines = results(every_fate(folder)).splitlines()
    assert lines[0].strip() == "6 trials of maker_v1 by select/log_loss"
    rows = [line.split()[0] for line in lines if line.startswith("000")]
    assert rows == [f"000{k}" for k in (1, 6, 4, 0, 2, 5)]
    assert "infeasible" in next(line for line in lines if line.startswith("0000"))
    assert "seed" not in "".join(lines)  # what all share
    assert next(line for line in lines if line.startswith("0001")).split()[-1] == "0.01235"
    assert (
        lines[-1] == "best: run=maker_v1/0001 select/log_loss=0.5  "
        "next: python backtest.py ckpt=maker_v1/0001"
    )
    assert max(len(line) for line in lines[:-1]) <= 80


def test_a_grid_shows_all_that_differs(folder):
    off = Dimension("features.ofi", choices=(True, False), texts=("", "null"))
    long = Dimension("name", choices=("a" * 30, "b" * 30), texts=("a" * 30, "b" * 30))
    others = [Dimension(f"model.x{k}", choices=(1, 2), texts=("1", "2")) for k in range(12)]
    study = small_study(folder, kind="grid", n_trials=0, space=Space((off, long, *others)))
    same = {d.path: 1 for d in others}
    end(study, 0.5, params={"features.ofi": True, "name": "a" * 30, **same})
    end(study, 0.6, params={"features.ofi": False, "name": "b" * 30, **same} | {"model.x7": 2})
    text = results(study, width=120)
    assert text.splitlines()[0].strip() == "2 runs by select/log_loss"
    assert [line.split() for line in text.splitlines() if line.startswith("maker_v1/")] == [
        ["maker_v1/0000", "0.5", f"name={'a' * 30}", "model.x7=1"],
        ["maker_v1/0001", "0.6", "features.ofi=null", f"name={'b' * 30}", "model.x7=2"],
    ]


@pytest.mark.parametrize(("width", "n_shown"), [(60, 4), (80, 7), (240, 16)])
def test_many_dimensions_are_as_many_columns_as_fit(wide, width, n_shown):
    lines = results(wide, width=width).splitlines()
    header = next(line for line in lines if line.startswith("run")).split()
    matters = "model.x9" if width == 240 else "x9"
    assert header[:3] == ["run", "value", matters]
    assert len(header) - 2 == n_shown
    rows = [line for line in lines if line.startswith("00")]
    assert len(rows) == N_RESULTS
    assert all(len(row.split()) == len(header) for row in rows)
    assert max(map(len, lines[:-1])) <= width
    assert max(len(cell) for row in rows for cell in row.split()) <= LONGEST_CELL
    left_out = f" and {16 - n_shown} more columns" if n_shown < 16 else ""
    assert lines[-2] == f"and 10 more trials{left_out} in results.parquet"


METRICS = {
    "select/log_loss": 0.69314718, "select/log_loss_excess": -0.00123456, "select/mcc": 0.0456789,
    "select/trades": 1234.0, "select/net_bps_day@binance_usdm_vip0": -80006.3465,
    "select/net_bps_day@maker_free": -3206.3465, "select/net_bps_day@binance_usdm_vip9": None,
}  # fmt: skip
SHORT = ["0.6931", "-0.001235", "0.04568", "1234", "-80006"]


@pytest.mark.parametrize("width", [72, 140])
def test_results_carry_the_metrics_with_their_digits(folder, width):
    study = small_study(folder, objectives=("select/net_bps_day@x",))
    for k in range(3):
        metrics = METRICS | {"select/mcc": None if k == 0 else 0.0456789}
        end(study, 1234.56 + k, params=POINT | {"optim.lr": 0.01 + k / 100}, metrics=metrics)
    lines = results(study, width=width).splitlines()
    header = next(line for line in lines if line.startswith("run")).split()
    scores = ["log_loss", "excess", "mcc", "trades"]
    assert header[:6] == ["run", "value", *scores]
    rows = [line.split() for line in lines if line.startswith("000")]
    assert [row[:2] for row in rows] == [
        ["0002", "1236.56"],
        ["0001", "1235.56"],
        ["0000", "1234.56"],
    ]
    assert rows[0][2:6] == SHORT[:4]
    assert rows[2][4] == "-"
    assert ("net@binance_usdm_vip0" in header) == (width == 140)
    assert "lr" in header or "optim.lr" in header
    assert max(map(len, lines[:-1])) <= width


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (0.0, "0"), (32.0, "32"), (1.34079, "1.3408"), (-0.030616, "-0.03062"),
        (1.2345e-6, "1.234e-06"), (-283.714, "-283.71"), (-80006.346, "-80006"), (1e12, "1e+12"),
        (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_are_brief(value, shown):
    assert brief_number(value) == shown


def test_long_headings_fold_before_a_digit_is_lost(folder):
    names = [f"select/net_bps_day@binance_{market}_vip0" for market in ("usdm", "spot", "coinm")]
    study = small_study(folder, objectives=tuple(names))
    end(study, -123.456, 234.567, -345.678, broken=1.0)
    lines = results(study, width=80).splitlines()
    (row,) = [line.split() for line in lines if line.startswith("0000")]
    assert row[1:] == ["-123.456", "234.567", "-345.678", "infeasible"]


def test_a_grid_over_seeds_is_averaged_per_point(folder):
    seed = Dimension("seed", choices=(1, 2, 3), texts=("1", "2", "3"))
    width = Dimension("labels.width", choices=(1.0, 2.0), texts=("1.0", "2.0"))
    study = small_study(folder, kind="grid", n_trials=0, space=Space((width, seed)))
    for value, n in ((1.0, 3), (2.0, 2)):
        for k in range(n):
            metrics = {"select/mcc": 0.1 * k, "select/trades": None}
            end(study, value + k, params={"labels.width": value, "seed": k + 1}, metrics=metrics)
    lines = results(study).splitlines()
    place = lines.index("2 points, over seeds")
    header, _, *rows = (line.split() for line in lines[place + 2 : place + 6])
    assert header == ["seeds", "mean", "sd", "mcc", "trades", "overrides"]
    assert rows == [
        ["3", "2", "1", "0.1000", "-", "labels.width=1.0"],
        ["2", "2.5000", "0.7071", "0.05", "-", "labels.width=2.0"],
    ]
    assert lines[-1].startswith("best: run=maker_v1/0000 ")


def test_a_front_has_a_column_per_objective(folder):
    values = [[3.0, 1.0], [5.0, 2.0], [2.0, 3.0]]
    study = small_study(folder, objectives=TWO)
    for two in values:
        end(study, *two)
    lines = results(study).splitlines()
    assert (
        lines[0].strip()
        == "3 trials of maker_v1 by select/net_bps_day@vip0 and select/turnover_day"
    )
    assert "net_bps_day" in lines[2]
    assert "turnover_day" in lines[2]
    assert [line for line in lines if line.startswith("also on the Pareto front: run=maker_v1/")]
    assert lines[-1].startswith("best: run=maker_v1/0000 ")


def test_objectives_of_one_short_name_are_told_apart(folder):
    study = small_study(folder, objectives=("select/net_bps_day@vip0", "select/net_bps_day@vip9"))
    end(study, 1.0, 2.0)
    header = results(study, width=120).splitlines()[2].split()
    assert header[1:3] == ["select/net_bps_day@vip0", "select/net_bps_day@vip9"]


def test_nothing_that_may_be_used_is_no_best(folder, tmp_path):
    study = small_study(folder)
    assert "best" not in results(study)
    end(study, reason="x")
    assert results(study).splitlines()[-1] == "no best: no trial was completed"
    end(study, 0.1, broken=1.0)
    assert (
        results(study).splitlines()[-1]
        == "no best: none of 1 complete trials keeps the constraints"
    )


def test_a_long_name_leaves_room(tmp_path):
    study = small_study(tmp_path / ("a" * 64), kind="grid", n_trials=0)
    for value in (0.5, 0.6):
        end(study, value, params=POINT | {"model": "mlp" if value > 0.5 else "tcn"})
    lines = results(study).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("000")] == ["0000", "0001"]
    assert max(len(line) for line in lines[:-1]) <= 80
