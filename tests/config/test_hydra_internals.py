"""Each private name of Hydra does what we use it for; a new Hydra fails here by the name."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.core.utils import JobReturn, JobStatus

from hft.config import hydra_internals
from hft.config.compose import compose
from hft.config.overrides import parse_overrides


def test_apply_overrides_to_config():
    composed = compose(["bars=volume"])
    overrides = parse_overrides(["bars.size=3", "+bars.more=a", "~seed", "++tags=[x]"])
    hydra_internals.apply_overrides(overrides, composed)
    assert composed.bars == {"kind": "volume", "size": 3, "more": "a"}
    assert "seed" not in composed
    assert composed.tags == ["x"]


def test_split_arguments_of_the_basic_sweeper():
    points = hydra_internals.grid_points(parse_overrides(["a=1,2", "b=x", "c=range(0,2)"]))
    assert points == [
        ["a=1", "b=x", "c=0"],
        ["a=1", "b=x", "c=1"],
        ["a=2", "b=x", "c=0"],
        ["a=2", "b=x", "c=1"],
    ]


def test_value_of_an_override():
    choice, steps, text = parse_overrides(["a=1,2", "b=range(0,9,3)", "c='d e'"])
    assert isinstance(hydra_internals.parsed_value(choice), ChoiceSweep)
    assert isinstance(hydra_internals.parsed_value(steps), RangeSweep)
    assert hydra_internals.parsed_value(steps).step == 3
    assert hydra_internals.parsed_value(text).text == "d e"


def test_convert_value_of_an_override():
    (override,) = parse_overrides(["a='x y',2,[1,b],{c:1.5},null,true"])
    elements = hydra_internals.parsed_value(override).list
    assert [hydra_internals.plain_value(element) for element in elements] == [
        "x y", 2, [1, "b"], {"c": 1.5}, None, True,
    ]  # fmt: skip


def test_return_value_of_a_job():
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = ValueError("ours")
    assert str(hydra_internals.error_of(job)) == "ours"
    with pytest.raises(ValueError, match="ours"):
        _ = job.return_value  # the public name raises, which is why the private one is read
