"""What a message tells the user to type works where it is printed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hft.system import commands


def test_a_checkout_has_scripts_and_an_installation_one_command(monkeypatch, tmp_path):
    monkeypatch.chdir(commands.ROOT)
    assert commands.typed("train", "resume=latest") == "python train.py resume=latest"
    assert commands.typed("runs") == "hft runs"
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    assert commands.typed("train", "resume=latest") == "hft train resume=latest"
    assert commands.typed("backtest", "ckpt=latest") == "hft backtest ckpt=latest"


def test_in_another_folder_than_the_checkout_there_are_no_scripts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert commands.typed("train") == "hft train"


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("runs", ["hft runs"]),
        ("studies", ["hft studies"]),
        ("audit", ["hft audit"]),
        ("config", ["hft check", "hft schema"]),
        ("tracking", ["hft workspace"]),
    ],
)
def test_a_command_of_0_1_names_its_successor(old, now):
    asked = [sys.executable, "-m", f"hft.{old}", "best", "study=x"]
    done = subprocess.run(asked, cwd=commands.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    quoted = " or ".join(f"`{command}`" for command in now)
    assert done.stderr == (
        f"error: `python -m hft.{old}` is {quoted} now; --help shows the arguments\n"
    )
