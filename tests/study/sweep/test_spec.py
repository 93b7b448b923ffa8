"""What a sweep's YAML may say, and how it is read."""

from __future__ import annotations

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft.spec import Kind, Room, Spec, SpecError, parse
from hft.study.sweep import Bound, trial_seed
from tests.study.sweep.test_conformance import read_sweep


class WithSweep(Spec):
    sweep: Annotated[Kind, Room("hft.study.sweep")]


def parse_sweep(shipped, **fields):
    return parse(WithSweep, {"sweep": {**read_sweep(shipped).plain(), **fields}}).sweep


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("45s", 45), ("90m", 5400), ("8h", 28800), ("2d", 172800), ("1.5h", 5400)],
)
def test_timeouts_have_units(text, seconds):
    assert parse_sweep("tpe", timeout=text).timeout_s == seconds


@pytest.mark.parametrize("text", ["90", "m", "0s", "-1h", "1h30m", "8 h", "8H"])
def test_other_timeouts_are_refused(text):
    with pytest.raises(SpecError, match=r"sweep.timeout: must be a number > 0 with s, m, h or d"):
        parse_sweep("tpe", timeout=text)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("tpe", {"n_trials": 0}, "n_trials must be > 0: tpe has no last point"),
        (
            "asha",
            {"objectives": ["select/log_loss", "select/turnover_day"]},
            "asha prunes by one objective",
        ),
        ("tpe", {"objectives": []}, "sweep.objectives"),
        ("tpe", {"objectives": ["a", "a"]}, "each objective once"),
        ("tpe", {"study": "../x"}, "sweep.study: must be letters"),
        ("tpe", {"study": ".hidden"}, "sweep.study: must be letters"),
        ("tpe", {"enqueue": ["default"]}, "got 'default', did you mean 'defaults'?"),
        ("tpe", {"enqueue": ["study:"]}, "sweep.enqueue: each must be defaults, study:<name>"),
        ("tpe", {"constraints": {"select/trades": {}}}, "a constraint needs min, max or both"),
        ("tpe", {"constraints": {"select/trades": {"min": 2, "max": 1}}}, "min must be <= max"),
        ("tpe", {"constraints": {"select/trades": {"mni": 2}}}, "did you mean 'min'?"),
        ("tpe", {"n_startpu": 3}, "did you mean 'n_startup'?"),
        ("folds", {"p_threshold": 1.0}, "sweep.p_threshold"),
        ("random", {"n_startup": 3}, "Random has no such field"),
        ("grid", {"kind": "gird"}, "no such kind 'gird', did you mean 'grid'?"),
    ],
)
def test_mistakes_are_refused(kind, fields, message):
    with pytest.raises(SpecError) as error:
        parse_sweep(kind, **fields)
    assert message in str(error.value)


def test_a_grid_may_have_every_point_and_no_space():
    sweep = parse_sweep("grid", space=None)
    assert (sweep.n_trials, sweep.space) == (0, {})


def test_the_direction_follows_the_name():
    names = [
        "select/log_loss",
        "select/net_bps_day@okx_perp_vip1",
        "select/max_drawdown_bps@x",
        "select/turnover_day",
    ]
    sweep = parse_sweep("nsga2", objectives=names)
    assert sweep.directions() == ["minimize", "maximize", "minimize", "minimize"]


def test_a_spec_is_read_back_from_json():
    sweep = parse_sweep(
        "tpe",
        constraints={"select/trades": {"min": 30}},
        enqueue=["defaults", {"model.channels": 8}],
    )
    assert parse_sweep("tpe", **sweep.plain()) == sweep
    assert sweep.constraints["select/trades"] == Bound(min=30.0, max=None)


@given(st.floats(-9, 9), st.floats(0, 9), st.floats(-20, 20))
def test_a_bound_is_kept_up_to_zero(low, width, value):
    high = low + width
    assert (Bound(min=low, max=high).excess(value) <= 0) is (low <= value <= high)
    assert (Bound(min=low, max=None).excess(value) <= 0) is (low <= value)
    assert (Bound(min=None, max=high).excess(value) <= 0) is (value <= high)


def test_what_is_not_a_number_breaks_a_bound():
    assert Bound(min=1.0, max=None).excess(math.nan) == math.inf


def test_seeds_of_trials_differ():
    seeds = [trial_seed(seed, number) for seed in range(20) for number in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
