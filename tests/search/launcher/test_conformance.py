"""The engines of this machine: local and inline. One that needs a cluster has its own test file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hft.search.launcher import Where
from hft.search.launcher.inline import Inline
from hft.search.launcher.local import Local
from hft.spec import Room
from tests.search.launcher import toys
from tests.search.launcher.conformance import Conformance, ProcessConformance

ROOT = Path(__file__).parents[3]


@pytest.fixture
def where(tmp_path):
    return Where(folder=tmp_path, device="cpu", threads=1)


@pytest.mark.parametrize("kind", Room("hft.search.launcher").names())
def test_the_shipped_yaml_is_a_launcher(kind):
    plain = yaml.safe_load((ROOT / "conf" / "launcher" / f"{kind}.yaml").read_text())
    assert (
        Room("hft.search.launcher").load(kind).model_validate_json(json.dumps(plain)).plain()
        == plain
    )


class TestLocal(ProcessConformance):
    @pytest.fixture
    def engine(self, where):
        with Local(kind="local", workers=2, per_gpu=1, timeout_min=0, memory_gb=0).open(
            where
        ) as engine:
            yield engine


class TestInline(Conformance):
    @pytest.fixture
    def engine(self, where):
        with Inline(kind="inline").open(where) as engine:
            yield engine

    def test_ctrl_c_comes_through(self, engine):
        with pytest.raises(KeyboardInterrupt):
            engine.submit(toys.fail, {"how": "ctrl-c"})
