"""`hft runs` tells runs apart, keeps every digit, and says how to go on with each."""

from __future__ import annotations

import json
import shutil

import pytest

from hft.cli.runs import main
from hft.runs.registry import create_run, find_run
from tests.smoke import QUIET, cut_short, folders, only_run

OBJECTIVE = "select/net_bps_day@binance_usdm_vip0"
CONFIG = {
    "seed": 7,
    "objective": OBJECTIVE,
    "experiment": "demo",
    "bars": {"kind": "dollar", "size": 1e6},
    "model": {"kind": "se_tcn"},
    "trainer": {"kind": "cpu"},
    "tags": ["a", "b"],
}
# As long as a line of kinds and overrides can be: it must break, and the digits must not.
TYPED = ["experiment=demo", "bars=dollar", *(f"model.field_{i}=123456789" for i in range(8))]


@pytest.fixture
def root(tmp_path):
    """A run that is done, one that was killed, and one that knew nothing yet."""
    for state in ("new", "killed", "done"):
        run = create_run(tmp_path / "runs")
        if state != "new":
            run.write_config(CONFIG, data_keys={}, overrides=TYPED)
        if state == "killed":
            run.mark("running")
        if state == "done":
            with run.working():
                run.write_metrics({OBJECTIVE: -123456.789})
    return tmp_path / "runs"


def listed(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_rows_can_be_told_apart_at_80_columns(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = listed(capsys, root).splitlines()
    assert all(len(line) <= 80 for line in lines if str(root) not in line)  # a path stays whole
    done, killed, new = (line for line in lines if not line.startswith(" "))
    assert done.split()[1:] == ["done", "-123457", OBJECTIVE]
    assert killed.split()[1:] == ["interrupted", OBJECTIVE]
    assert new.split()[1:] == ["unreadable"]
    of_done = [line.strip() for line in lines[1 : lines.index(killed)]]
    assert of_done[0] == "experiment=demo bars=dollar model=se_tcn"
    assert " ".join(of_done[1:-2]).split() == TYPED[2:]
    assert of_done[-2:] == ["tags=a,b", f"python backtest.py ckpt={done.split()[0]}"]
    assert lines[lines.index(new) - 1].strip() == f"python train.py resume={killed.split()[0]}"
    reason = " ".join(" ".join(lines[lines.index(new) + 1 :]).split())
    assert "config.json: missing, so" in reason


def test_the_same_as_json(root, capsys):
    done, killed, new = json.loads(listed(capsys, root, "--json"))
    assert done["value"] == -123456.789
    assert done["kinds"] == {"bars": "dollar", "model": "se_tcn", "trainer": "cpu"}
    assert (done["experiment"], done["overrides"], done["tags"]) == ("demo", TYPED, ["a", "b"])
    assert (killed["state"], killed["value"]) == ("interrupted", None)
    assert (new["state"], new["next"]) == ("unreadable", "")
    assert "config.json: missing" in new["reason"]


def test_a_stranger_s_config_does_not_end_the_list(root, capsys):
    run = find_run(root, "latest")
    for config in ({}, {"objective": ["x"], "tags": 3}, {"objective": OBJECTIVE, "tags": None}):
        about = run.read_about() | {"config": config, "overrides": "x"}
        (run.folder / "config.json").write_text(json.dumps(about))
        assert json.loads(listed(capsys, root, "--json"))[0]["state"] == "unreadable"


def test_no_runs_yet(tmp_path, capsys):
    assert listed(capsys, tmp_path) == f"no runs in {tmp_path}; begin one: python train.py\n"
    assert json.loads(listed(capsys, tmp_path, "--json")) == []
    with pytest.raises(SystemExit, match="2"):
        main(["a", "b"])


def test_a_trained_run_is_listed_with_what_was_typed(smoke, tmp_path, capsys):
    done = smoke.copy(tmp_path)
    folder = tmp_path / "runs" / "20240101-000000-0000"
    shutil.copytree(done.folder, folder)
    cut_short(find_run(tmp_path / "runs", folder.name))
    first, second = json.loads(listed(capsys, tmp_path / "runs", "--json"))
    assert (first["run"], second["run"]) == (done.id, folder.name)
    assert first["value"] == done.read_metrics()[OBJECTIVE]
    assert first["kinds"]["model"] == "se_tcn"
    assert (second["state"], second["next"]) == (
        "interrupted",
        f"python train.py resume={folder.name}",
    )


def test_places_are_not_among_what_was_typed(shell, tmp_path):
    ended = shell(
        "train.py",
        "experiment=smoke",
        "trainer.epochs=1",
        "logger=none",
        *QUIET,
        *folders(tmp_path),
    )
    assert ended.status == 0, ended.err
    expected = ["experiment=smoke", "trainer.epochs=1", "logger=none", *QUIET]
    assert only_run(tmp_path).read_overrides() == expected
