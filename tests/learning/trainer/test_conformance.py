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


def trainer_with(callbacks, *, stored=False):
    plain = yamls("trainer")["cpu"] | {"callbacks": callbacks}
    if callbacks is None:
        del plain["callbacks"]
    specs = {"optim": yamls("optim")["adamw"], "trainer": plain}
    return parse(Config, specs, stored=stored).trainer


def test_callbacks_are_named_and_a_stored_trainer_of_before_stops_early():
    assert trainer_with(["gate_monitor", "lr_monitor"]).callbacks == ("gate_monitor", "lr_monitor")
    assert not trainer_with(["profiler"]).stops_early
    assert trainer_with(["profiler"]).profiles
    assert trainer_with(None, stored=True).callbacks == ("early_stopping",)
    with pytest.raises(SpecError, match=r"trainer\.callbacks: must be given"):
        trainer_with(None)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (["lr_monitr"], r"callbacks: must name .*, got 'lr_monitr', did you mean 'lr_monitor'\?"),
        (["os.system"], r"got 'os\.system'; one of early_stopping, ema, lr_monitor"),
        ([{"kind": "lr_monitor"}], r"got \{'kind': 'lr_monitor'\}"),
        (["ema"], r"ema averages with the decay `ema`, which is 0; set trainer\.ema=0\.999"),
        (["lr_monitor", "lr_monitor"], r"must name each callback once"),
        ("lr_monitor", r"must be a list of names, such as \[lr_monitor\], got 'lr_monitor'"),
    ],
)
def test_callbacks_that_are_not_ours_are_refused(callbacks, message):
    with pytest.raises(SpecError, match=message):
        trainer_with(callbacks)
