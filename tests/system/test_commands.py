"""What a message tells the user to type works where it is printed."""

from __future__ import annotations

from hft.system import commands


def test_a_checkout_has_scripts_and_an_installation_one_command(monkeypatch, tmp_path):
    assert commands.typed("train", "resume=latest") == "python train.py resume=latest"
    assert commands.typed("runs") == "hft runs"
    monkeypatch.setattr(commands, "PACKAGE", tmp_path / "hft")
    assert commands.typed("train", "resume=latest") == "hft train resume=latest"
    assert commands.typed("backtest", "ckpt=latest") == "hft backtest ckpt=latest"
