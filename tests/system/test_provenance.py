"""What two runs say of themselves, and what of it differs."""

from __future__ import annotations

import pytest

from hft.config.configs import TrainConfig
from hft.system.provenance import differences, flat


def about(**config):
    return {
        "git": {"commit": "a" * 40, "dirty": False},
        "data_keys": {"span": [0, 1], "bars": ["b"]},
        "versions": {"torch": "2.0"},
        "config": {
            "seed": 0,
            "tags": ["one"],
            "bars": {"kind": "tick", "size": 10},
            "trainer": {"kind": "cpu", "threads": 1, "progress": True},
            "logger": {"kind": "none"},
        }
        | config,
    }


def test_equal_accounts_differ_in_nothing():
    assert differences(about(), about(), config=TrainConfig) == []


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"tags": ["two"], "logger": {"kind": "csv"}}, []),
        ({"trainer": {"kind": "cpu", "threads": 1, "progress": False}}, []),
        (
            {"trainer": {"kind": "cpu", "threads": 2, "progress": False}},
            ["config: trainer.threads 1 -> 2"],
        ),
        ({"seed": 3}, ["config: seed 0 -> 3"]),
        ({"added": {"since": 1}}, []),
    ],
)
def test_only_what_changes_numbers_differs(changes, lines):
    assert differences(about(), about(**changes), config=TrainConfig) == lines


def test_leaves_by_their_paths():
    assert flat({"a": {"b": 1, "c": [2]}, "d": {}}) == {"a.b": 1, "a.c": [2]}
