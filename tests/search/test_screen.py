"""What a sweep shows while it runs: one line per finished trial off a terminal, a table on one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from hft.search import screen
from hft.search.screen import Live
from hft.study.claims import release
from tests.smoke import ROOT
from tests.study.small_study import POINT, begin, end, every_fate, small_study


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_off_a_terminal_each_finished_trial_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(screen, "EVERY_S", 0.0)
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


def test_the_columns_of_the_live_table_do_not_jump(folder):
    live = Live(study := small_study(folder), slots=1)
    ranked = []
    for k in range(45):
        end(study, float(k), params=POINT | {"optim.lr": 0.001 * (k + 1)})
        ranked.append(live._shares())
    changes = [k + 1 for k in range(1, 45) if ranked[k] is not ranked[k - 1]]
    assert changes == [10, 20, 40]


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
