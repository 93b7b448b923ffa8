"""`hft runs` tells runs apart and says how to go on with each."""

from __future__ import annotations

import shutil

from hft.cli import runs as runs_command
from hft.runs.registry import create_run, find_run
from tests.smoke import cut_short

CONFIG = {"seed": 7, "bars": {"kind": "dollar", "size": 1e6}, "tags": ["a"]}


def test_the_list_says_how_to_go_on(tmp_path, capsys):
    finished, broken, killed = (create_run(tmp_path) for _ in range(3))
    for run in (finished, killed):
        run.write_config(CONFIG | {"objective": "select/log_loss"}, data_keys={})
    with finished.working():
        finished.write_metrics({"select/log_loss": 0.75})
    killed.mark("running")
    assert runs_command.main([str(tmp_path)]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "resume=" in shown
    assert "backtest.py" in shown
    assert "unreadable" in shown
    assert "interrupted" in shown
    assert "0.75" in shown
    assert broken.state == "new"
    assert runs_command.main(["a", "b"]) == 2


def test_the_list_shows_how_to_go_on(smoke, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    done = smoke.copy(tmp_path)
    folder = tmp_path / "runs" / "20240101-000000-0000"
    shutil.copytree(done.folder, folder)
    cut_short(find_run(tmp_path / "runs", folder.name))
    assert runs_command.main([str(tmp_path / "runs")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    value = done.read_metrics()["select/net_bps_day@binance_usdm_vip0"]
    assert f"select/net_bps_day@binance_usdm_vip0={value:.6g}" in shown
    assert f"python backtest.py ckpt={done.id}" in shown
    assert f"{folder.name} interrupted " in shown
    assert f"python train.py resume={folder.name}" in shown
    assert shown.index(done.id) < shown.index(folder.name)
