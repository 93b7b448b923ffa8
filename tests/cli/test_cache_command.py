"""`hft cache`: what it lists is what is there, and what it removes is what it says."""

from __future__ import annotations

import json
import os
import time

import polars as pl
import pytest

from hft.__main__ import main
from hft.system.cache import Cache

FRAME = pl.DataFrame({"bar": [0, 1, 2]})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two entries of bars, one of them 40 days old, one of labels, two kernels, one of them old."""
    monkeypatch.setenv("HFT_KERNELS", str(tmp_path / "kernels"))
    cache = Cache(tmp_path / "cache")
    for stage, size in (("bars", 1), ("bars", 2), ("labels", 1)):
        cache.stage(stage, spec=size, module="hft.schema", build=lambda: ({"x": FRAME}, {}))
    (tmp_path / "kernels").mkdir(mode=0o700)
    for name in ("a", "b"):
        (tmp_path / "kernels" / f"{name}.kernel").write_bytes(b"12345")
    old = time.time() - 40 * 86_400
    entry = cache.stage("bars", spec=1, module="hft.schema", build=None)
    for path in (tmp_path / "kernels" / "a.kernel", *entry.folder.iterdir()):
        os.utime(path, (old, old))
    return tmp_path


def ask(root, *words):
    return main(["cache", f"cache={root / 'cache'}", *words])


def counts(root, capsys):
    capsys.readouterr()
    assert ask(root, "--json") == 0
    return {row["stage"]: row["entries"] for row in json.loads(capsys.readouterr().out)}


def test_lists_entries_by_stage(root, capsys):
    assert counts(root, capsys) == {"bars": 2, "labels": 1, "kernels": 2}
    assert ask(root) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["stage", "entries", "size"]
    assert [line.split()[:2] for line in lines] == [
        ["bars", "2"],
        ["labels", "1"],
        ["kernels", "2"],
    ]
    assert str(root / "kernels") in lines[2]


def test_json_has_bytes_and_times(root, capsys):
    ask(root, "--json")
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    size = sum(p.stat().st_size for p in (root / "cache" / "bars").rglob("*") if p.is_file())
    assert rows["bars"]["bytes"] == size
    assert rows["kernels"]["bytes"] == 10
    assert rows["bars"]["used"].startswith(time.strftime("%Y-%m", time.gmtime()))


def test_clears_one_stage(root, capsys):
    assert ask(root, "clear", "bars") == 0
    assert "2 entries" in capsys.readouterr().out
    assert counts(root, capsys) == {"labels": 1, "kernels": 2}
    assert ask(root, "clear", "kernels") == 0
    assert "2 compiled kernels" in capsys.readouterr().out
    assert counts(root, capsys) == {"labels": 1, "kernels": 0}


def test_clears_everything(root, capsys):
    assert ask(root, "clear") == 0
    said = capsys.readouterr().out
    assert "3 entries" in said
    assert "2 compiled kernels" in said
    assert counts(root, capsys) == {"kernels": 0}
    assert ask(root) == 0
    assert "holds no stage yet" in capsys.readouterr().out


def test_prunes_what_was_not_used(root, capsys):
    assert ask(root, "prune") == 0
    said = capsys.readouterr().out
    assert "removed 1 entry of" in said
    assert "1 compiled kernel" in said
    assert counts(root, capsys) == {"bars": 1, "labels": 1, "kernels": 1}
    ask(root, "prune", "days=50")
    assert counts(root, capsys) == {"bars": 1, "labels": 1, "kernels": 1}


def test_says_that_kernels_are_off(root, capsys, monkeypatch):
    monkeypatch.setenv("HFT_KERNELS", "off")
    ask(root)
    assert "HFT_KERNELS=off" in capsys.readouterr().out
    assert counts(root, capsys) == {"bars": 2, "labels": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clean"], "clean: must be one of list, clear, prune, did you mean 'clear'"),
        (
            ["clear", "labls"],
            "holds no such stage, it holds bars, labels, kernels, did you mean 'l",
        ),
        (["prune", "days=-1"], "days=-1: must be a number of days >= 0"),
        (["prune", "days=nan"], "days=nan: must be a number of days >= 0"),
        (["folder=x"], "takes no folder=; usage: hft cache"),
        (["clear", "days=3"], "takes no days=; usage"),
        (["prune", "bars"], "takes no 'bars'; usage"),
    ],
)
def test_mistakes_are_refused_and_remove_nothing(root, capsys, words, said):
    assert ask(root, *words) == 2
    assert said in capsys.readouterr().err
    assert counts(root, capsys) == {"bars": 2, "labels": 1, "kernels": 2}
