"""The keys that a run keeps of its bars, features and labels: each moves with what it is of, and
with nothing else.
"""

from __future__ import annotations

import pytest

import hft
from hft.config.configs import DataKeys
from hft.dataset.stages import definition_keys
from hft.runs.frames import make_keys
from hft.runs.jobs import read_data_keys
from hft.system.cache import Cache
from tests.smoke import smoke_config


def keys_of(root, *overrides):
    config = smoke_config(root, *overrides)
    return definition_keys(config.features, config.labels, Cache(root))


@pytest.mark.parametrize(
    ("override", "moved"),
    [
        ("labels.width=0.5", (False, True)),
        ("features.ofi.window=3", (True, False)),
        ("features=[trades_only]", (True, False)),
        ("data.seed=1", (False, False)),  # in the keys of the bars
        ("model.channels=4", (False, False)),
    ],
)
def test_definitions_move_their_own_key(tmp_path, override, moved):
    before, after = keys_of(tmp_path), keys_of(tmp_path, override)
    assert tuple(a != b for a, b in zip(before, after, strict=True)) == moved


def test_a_run_keeps_the_keys_of_its_whole_market(smoke):
    config = smoke_config(smoke.root)
    market = hft.load_market(config)
    assert read_data_keys(smoke.run) == make_keys(config, market)
    other = smoke_config(smoke.root, "bars.size=12", "labels.width=0.5")
    keys = make_keys(other, hft.load_market(other))
    assert read_data_keys(smoke.run).moved(keys) == ["bars", "labels"]


def test_what_an_older_run_kept_no_key_of_cannot_be_told():
    before = DataKeys(span=(0, 9), bars=("a",), features="", labels="")
    assert before.moved(DataKeys(span=(0, 9), bars=("a",), features="f", labels="l")) == []
    assert before.moved(DataKeys(span=(0, 8), bars=("b",), features="f", labels="l")) == [
        "span",
        "bars",
    ]
