"""What a sweep shows: one line per finished trial off a terminal, a table on one, the results at
the end.
"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from hft.search import screen as _live
from hft.search.screen import Live
from hft.space import Dimension, Space
from hft.study.claims import release
from hft.study.progress import clock, left_s, progress
from hft.study.tables import LONGEST_CELL, N_RESULTS, print_results
from tests.smoke import ROOT
from tests.study.small_study import POINT, begin, end, every_fate, small_study

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def trimmed(console):
    return "\n".join(line.strip() for line in console.file.getvalue().splitlines())


def shown(what, *, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(what)
    return trimmed(console)


def results(study, *, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    print_results(study, console=console)
    return trimmed(console)


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


def test_off_a_terminal_each_finished_trial_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(_live, "EVERY_S", 0.0)
    study = small_study(folder, n_trials=3)
    end(study, 0.9)
    with Live(study, slots=2) as live:
        live.update()
        assert release(study, begin(study), "died\x1b[31m\nat once", counted=True)
        end(study, 0.5)
        live.update()
        live.finished()
        live.update()
    out = capsys.readouterr()
    lines = out.err.splitlines()
    assert out.out == ""
    assert "\x1b" not in out.err
    assert lines[0].startswith("[1/3] maker_v1/0001 retried")
    assert lines[0].endswith(": died [31m")
    assert lines[1].startswith("[2/3] maker_v1/0002 complete select/log_loss=0.5")
    assert len(lines) == 2  # what was there before, and nothing twice


def test_between_two_looks_the_storage_is_left_alone(folder, capsys):
    study = small_study(folder)
    with Live(study, slots=1) as live:
        live.update()
        end(study, 0.5)
        live.update()
        assert capsys.readouterr().err == ""
        live.finished()
        live.update()
        assert "maker_v1/0000 complete" in capsys.readouterr().err
    assert capsys.readouterr().err == ""


SWEEP = """
import sys
from pathlib import Path
from hft.study.study import open_study
from hft.search.screen import Live
from tests.study.small_study import end
study = open_study(Path(sys.argv[1]))
with Live(study, slots=1) as live:
    live.update(now=True)
    end(study, 0.25, number=7)
    live.finished()
    live.update()
with Live(study, slots=1, in_place=False):
    pass
"""


@pytest.mark.slow
def test_on_a_terminal_the_table_stays_in_place(folder):
    every_fate(folder)
    terminal, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "50"}
    command = [sys.executable, "-W", "error", "-c", SWEEP, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs
    ) as sweep:
        os.close(theirs)
        out, err = sweep.stdout.read(), _read_all(terminal)
    assert sweep.returncode == 0, err
    assert out == b""
    first, second = err.index("6 of 20 done"), err.index("7 of 20 done")
    assert "\x1b[1A" in err[first:second]  # up again, to write over it
    assert "0.25" in err[second:]
    assert "overrides" not in err
    assert "optim.lr" in err[first:second]
    assert "optim.lr" not in err[second:]  # none runs any more
    assert err.endswith("\x1b[2K")  # nothing is left of it


def _read_all(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return b"".join(parts).decode()


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


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Sixteen numbers, of which `model.x9` alone matters, and a choice too long for a column;
    thirty trials.
    """
    choice = Dimension("features", choices=("[a,b]", "c" * 40), texts=("[a,b]", "c" * 40))
    numbers = [Dimension(f"model.x{k}", low=0.0, high=1.0) for k in range(15)]
    study = small_study(tmp_path_factory.mktemp("wide") / "wide", space=Space((choice, *numbers)))
    for k in range(30):
        noise = {d.path: (k * (7 + i) % 30) / 30 + 1 / 70 for i, d in enumerate(numbers)}
        end(
            study,
            k / 30,
            params={"features": ("[a,b]", "c" * 40)[k % 2], **noise, "model.x9": k / 30},
        )
    return study


@pytest.mark.parametrize(("width", "n_shown"), [(60, 4), (80, 7), (240, 16)])
def test_many_dimensions_are_as_many_columns_as_fit(wide, width, n_shown):
    lines = results(wide, width=width).splitlines()
    header = next(line for line in lines if line.startswith("run")).split()
    assert header[:3] == [
        "run",
        "value",
        "model.x9" if width == 240 else "x9",
    ]  # what matters is the first
    assert len(header) - 2 == n_shown
    rows = [line for line in lines if line.startswith("00")]
    assert len(rows) == N_RESULTS
    assert all(len(row.split()) == len(header) for row in rows)
    assert max(map(len, lines[:-1])) <= width
    assert max(len(cell) for row in rows for cell in row.split()) <= LONGEST_CELL
    left_out = f" and {16 - n_shown} more columns" if n_shown < 16 else ""
    assert lines[-2] == f"and 10 more trials{left_out} in results.parquet"


def test_the_live_table_has_what_matters_first_and_does_not_jump(wide, folder):
    shares = {"model.x9": 0.9, "model.x3": 0.1}
    begun = begin(wide, {"features": "[a,b]"}, steps={1: 0.5})
    text = shown(progress(wide, slots=1, n_total=40, shares=shares))
    end(wide, number=begun, reason="over")
    (header,) = [line.split() for line in text.splitlines() if line.startswith("running")]
    assert header[:5] == ["running", "step", "value", "x9", "x3"]
    live = Live(study := small_study(folder), slots=1)
    ranked = []
    for k in range(45):
        end(study, float(k), params=POINT | {"optim.lr": 0.001 * (k + 1)})
        ranked.append(live._shares())
    changes = [k + 1 for k in range(1, 45) if ranked[k] is not ranked[k - 1]]
    assert changes == [10, 20, 40]


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


METRICS = {
    "select/log_loss": 0.69314718, "select/log_loss_excess": -0.00123456, "select/mcc": 0.0456789,
    "select/trades": 1234.0, "select/net_bps_day@binance_usdm_vip0": -80006.3465,
    "select/net_bps_day@maker_free": -3206.3465, "select/net_bps_day@binance_usdm_vip9": None,
}  # fmt: skip
SHORT = ["0.69315", "-0.0012346", "0.045679", "1234", "-80006"]


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
        ["3", "2", "1", "0.1", "-", "labels.width=1.0"],
        ["2", "2.5", "0.707", "0.05", "-", "labels.width=2.0"],
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
