"""What a run records of what ran."""

from __future__ import annotations

import re
import subprocess
import sys

from hft.spec import PACKAGE
from hft.system import provenance
from hft.system.provenance import git_state, versions


def test_versions_are_read_without_importing():
    code = (
        "import sys, hft.runs.registry, hft.system.provenance; hft.system.provenance.versions(); "
        "print([m for m in ('torch', 'numba', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"
    assert "optuna_that_is_not_there" not in versions()


def test_git_state_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "hft")
    assert git_state() == {"commit": None, "dirty": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    (tmp_path / "a.py").write_text("A = 1\n")
    for command in (["init", "-q"], ["add", "a.py"], ["commit", "-q", "-m", "a", "--no-verify"]):
        subprocess.run([*git, *command], check=True)
    clean = git_state()
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"])
    assert clean["dirty"] is False
    (tmp_path / "b.py").write_text("B = 1\n")
    assert git_state() == {"commit": clean["commit"], "dirty": True}


def test_no_git_is_fine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}
