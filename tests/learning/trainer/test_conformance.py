"""Every shipped trainer and optimiser parses, cpu and gpu; what a trainer refuses, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
import torch
import yaml

from hft.learning.trainer import TrainingError
from hft.learning.trainer.gpu import Gpu
from hft.spec import Kind, Room, Spec, SpecError, parse


def test_gpu_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"trainer=gpu: .* sees no CUDA GPU; use trainer=cpu"):
        Gpu.model_validate_json(json.dumps(yamls("trainer")["gpu"])).device()


class Config(Spec):
    optim: Annotated[Kind, Room("hft.learning.optim")]
    trainer: Annotated[Kind, Room("hft.learning.trainer")]


def yamls(group):
    return {
        path.stem: yaml.safe_load(path.read_text()) for path in Path(f"conf/{group}").glob("*.yaml")
    }


def test_every_kind_ships_its_yaml_and_parses():
    for group in ("optim", "trainer"):
        assert {plain["kind"] for plain in yamls(group).values()} == set(
            Room(f"hft.learning.{group}").specs()
        )
    for optim in yamls("optim").values():
        for trainer in yamls("trainer").values():
            parse(Config, {"optim": optim, "trainer": trainer})


def test_an_unknown_monitor_gets_a_suggestion():
    plain = {
        "optim": yamls("optim")["adamw"],
        "trainer": yamls("trainer")["cpu"] | {"monitor": "tune/macrof1"},
    }
    with pytest.raises(
        SpecError, match=r"trainer\.monitor: .* got 'tune/macrof1', did you mean 'tune/macro_f1'\?"
    ):
        parse(Config, plain)
