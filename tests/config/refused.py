"""What composing refuses, and an experiment of a test's own."""

from __future__ import annotations

import pytest

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.spec import SpecError
from hft.system.conf import CONF


def refusal(*overrides, conf=CONF):
    with pytest.raises(SpecError) as error:
        make_config(TrainConfig, list(overrides), conf=conf)
    return str(error.value)


def write_experiment(conf, body):
    (conf / "experiment" / "mine.yaml").write_text("# @package _global_\n" + body)
