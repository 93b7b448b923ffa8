"""What the groups of conf/ offer."""

from __future__ import annotations

import pytest

from hft.config.configs import TrainConfig
from hft.config.groups import SETS, SWEEP_GROUPS, read_groups
from hft.search.settings import SweepConfig
from hft.spec import room_of
from hft.system.conf import CONF


@pytest.mark.parametrize(
    "text", ["a: {b: [1", "- a", "defaults: [mine]\na: 1", "defaults:", "", "\x00"]
)
def test_a_file_that_nobody_chose_stops_no_sweep(tmp_path, text):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(text)
    (tmp_path / "model" / "tcn.yaml").write_text("kernel: 3")
    assert read_groups(tmp_path)["model"]["tcn"] == {"kernel": 3}


def test_an_option_has_the_fields_of_what_it_includes(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "base.yaml").write_text("a: 1\nb: 2\n")
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [base, _self_]\nb: 3\n")
    assert read_groups(tmp_path)["model"]["mine"] == {"a": 1, "b": 3}


def test_groups_and_config_classes_agree():
    assert tuple(SweepConfig.model_fields) == SWEEP_GROUPS
    groups = read_groups(CONF)
    assert {name for name, field in TrainConfig.model_fields.items() if room_of(field)} <= set(
        groups
    )
    sets = [n for n, f in TrainConfig.model_fields.items() if "dict" in repr(f.annotation)]
    assert sorted(sets) == sorted(SETS)
