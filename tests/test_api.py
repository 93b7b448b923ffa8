"""The API for notebooks: docs/api.md runs as printed, and what it gives is what is on disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import hft
from hft.report.scorecard import Scorecard
from hft.runs.folder import RunError
from hft.schema import LEDGER, PREDICTIONS
from hft.spec import UserError
from tests.smoke import QUIET, ROOT, folders

PAGE = ROOT / "docs" / "api.md"
NOTEBOOK = ROOT / "experiments" / "start_here.ipynb"


def code_of(page):
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return code


def test_the_page_runs_as_printed(tmp_path, monkeypatch, capsys):
    code = code_of(PAGE)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    gross, trades, rows = printed.splitlines()[-1].split()
    assert float(gross) == names["slow"].gross_bps_trade
    assert int(trades) == int(rows) == names["slow"].trades
    assert {p.name for p in tmp_path.iterdir()} == {"runs", ".cache"}
    run = names["run"]
    assert run == hft.load_run(run.id)
    assert run.read_overrides() == []
    assert run.config.plain() == names["config"].plain()


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert names["card"].verdict in capsys.readouterr().out
    assert names["run"].ledger.height == names["card"].trades


def test_everything_exported_is_on_the_page():
    page = PAGE.read_text()
    assert [name for name in hft.__all__ if f"`{name}" not in page] == []
    stub = (ROOT / "hft" / "__init__.pyi").read_text()
    assert re.findall(r"import (\w+) as \1", stub) == hft.__all__
    with pytest.raises(AttributeError, match=r"has no attribute 'trian'; it has Run, backtest"):
        hft.trian  # noqa: B018


def test_importing_hft_costs_nothing():
    code = (
        "import sys, hft; dir(hft); print([m for m in ('hft.spec', 'polars') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_has_its_parts_as_objects_and_frames(smoke):
    run = hft.load_run(smoke.run.id, folders(smoke.root))
    assert run.folder == smoke.run.folder
    assert run.state == "done"
    stored = run.read_config()
    assert run.config.plain() == stored | {"paths": run.paths.plain()}
    assert run.metrics == smoke.run.read_metrics()
    assert run.predictions.schema == PREDICTIONS
    assert run.ledger.schema == LEDGER
    assert isinstance(run.scorecard, Scorecard)
    assert run.scorecard.plain() == smoke.card.plain()
    assert len(run.ledger) == run.scorecard.trades


def test_a_run_of_any_folder_is_scored(smoke, tmp_path):
    copy = smoke.copy(tmp_path / "elsewhere")
    run = hft.load_run(str(copy.folder), folders(smoke.root))
    card = hft.backtest(run, ["name=again", "logger=none"])
    assert card.gross_bps_trade == smoke.card.gross_bps_trade
    assert run.read_scorecard("again").plain() == card.plain()
    assert not (smoke.run.folder / "backtest" / "again").exists()


def test_what_is_missing_is_one_clear_error(smoke, tmp_path):
    with pytest.raises(RunError, match="no run '2024'"):
        hft.load_run("2024", folders(tmp_path))
    run = hft.load_run(smoke.run.id, folders(smoke.root))
    missing = r"scorecard\.json: missing, so this run has no backtest 'final'; score the run again"
    with pytest.raises(RunError, match=missing):
        run.read_scorecard("final")
    with pytest.raises(RunError, match=r"ledger\.parquet: missing or unreadable .*; score"):
        run.read_ledger("final")
    with pytest.raises(RunError, match="backtest name: must be letters"):
        run.read_ledger("../test")
    with pytest.raises(UserError, match=r"bars\.size: must be greater than"):
        hft.make_config(["experiment=smoke", "bars.size=0", *QUIET])
