"""From YAML and Hydra's grammar to points, and back through Hydra to the values."""

from __future__ import annotations

import itertools
import json
import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.config.groups import read_groups
from hft.config.overrides import parse_overrides
from hft.space import Dimension, Space, check_space, read_space, scalar, value_text
from hft.spec import SpecError
from hft.system.conf import CONF

KNOWN = read_groups(CONF)
CHOICES = {
    "model": "se_tcn",
    "bars": "dollar",
    "loss": "focal",
    "labels": "triple_barrier",
    "experiment": None,
}
BASE = {
    "seed": 0,
    "features": {name: {"kind": name} for name in KNOWN["features"]["micro"]},
    **{group: KNOWN[group][option] for group, option in CHOICES.items() if option},
    "optim": KNOWN["optim"]["adamw"],
}


def read(yaml=None, *overrides, choices=CHOICES):
    parsed = parse_overrides(list(overrides))
    return read_space(yaml or {}, parsed, base=BASE, choices=choices, known=KNOWN)


def space(yaml=None, *overrides):
    return read(yaml, *overrides)[0]


def refusal(yaml=None, *overrides):
    with pytest.raises(SpecError) as error:
        read(yaml, *overrides)
    return str(error.value)


def heard(overrides):
    """What Hydra reads: path -> value."""
    return {o.key_or_group: o.value() for o in parse_overrides(overrides)}


# What people type


def test_a_grid_from_the_command_line():
    found, fixed = read(
        None,
        "bars=volume,dollar",
        "labels.width=0.5,1,2",
        "seed=1,2,3",
        "loss.gamma=1",
        "sweep.seed=3",
    )
    assert fixed == ["loss.gamma=1"]
    points = found.grid()
    assert len(points) == 18
    assert points[:2] == [
        {"bars": "volume", "labels.width": 0.5, "seed": 1},
        {"bars": "volume", "labels.width": 0.5, "seed": 2},
    ]
    assert found.overrides(points[-1]) == ["bars=dollar", "labels.width=2", "seed=3"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "model.channels=choice(32,64)",
            Dimension("model.channels", choices=(32, 64), texts=("32", "64")),
        ),
        ("optim.lr=interval(1e-4,1e-2)", Dimension("optim.lr", low=1e-4, high=1e-2)),
        (
            "optim.lr=tag(log, interval(1e-4, 1e-2))",
            Dimension("optim.lr", low=1e-4, high=1e-2, log=True),
        ),
        ("model.levels=int(interval(2,6))", Dimension("model.levels", low=2, high=6, integer=True)),
        (
            "model.levels=int(tag(log,interval(2,6)))",
            Dimension("model.levels", low=2, high=6, integer=True, log=True),
        ),
        ("model.levels=range(2,6)", Dimension("model.levels", low=2, high=5, integer=True)),
        (
            "model.levels=range(2,9,3)",
            Dimension("model.levels", low=2, high=8, step=3, integer=True),
        ),
        ("labels.width=range(0.5,1.1,0.2)", Dimension("labels.width", low=0.5, high=0.9, step=0.2)),
        ("labels.width=range(0,2.1,0.7)", Dimension("labels.width", low=0.0, high=1.4, step=0.7)),
        (
            "model.levels=range(5,2,-1)",
            Dimension("model.levels", choices=(5, 4, 3), texts=("5", "4", "3")),
        ),
        (
            "model.levels=tag(log,range(1,9))",
            Dimension("model.levels", low=1, high=8, integer=True, log=True),
        ),
        (
            "features=[micro],[micro,book]",
            Dimension(
                "features", choices=("[micro]", "[micro,book]"), texts=("[micro]", "[micro,book]")
            ),
        ),
        ("+x=a,b", Dimension("x", "+", choices=("a", "b"), texts=("a", "b"))),
        ("++x.y='1','a b'", Dimension("x.y", "++", choices=("1", "a b"), texts=("'1'", "'a b'"))),
        (
            "bars=glob(*e, exclude=t*)",
            Dimension(
                "bars",
                choices=("dollar_adaptive", "volume", "volume_adaptive"),
                texts=("dollar_adaptive", "volume", "volume_adaptive"),
            ),
        ),
        (
            "features.ofi=true,false",
            Dimension("features.ofi", choices=(True, False), texts=("", "null")),
        ),
        (
            "optim.betas=[0.9,0.99],[0.8,0.999]",
            Dimension(
                "optim.betas",
                choices=("[0.9,0.99]", "[0.8,0.999]"),
                texts=("[0.9,0.99]", "[0.8,0.999]"),
            ),
        ),
    ],
)
def test_hydras_grammar_makes_dimensions(override, expected):
    assert space(None, override).dimensions == (expected,)


def test_every_experiment_is_a_dimension():
    found = space(None, "experiment=glob(*)")
    assert found.dimensions[0].choices == tuple(
        sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([1, 2], Dimension("model.kernel", choices=(1, 2), texts=("1", "2"))),
        ({"low": 2, "high": 5}, Dimension("model.kernel", low=2, high=5, integer=True)),
        (
            {"low": 2, "high": 9, "step": 2},
            Dimension("model.kernel", low=2, high=9, step=2, integer=True),
        ),
        ({"low": 2, "high": 9.5}, Dimension("model.kernel", low=2.0, high=9.5)),
        (
            {"low": 2, "high": 9, "log": True},
            Dimension("model.kernel", low=2, high=9, log=True, integer=True),
        ),
        ({"values": [2, 3]}, Dimension("model.kernel", choices=(2, 3), texts=("2", "3"))),
    ],
)
def test_yaml_makes_dimensions(body, expected):
    assert space({"model.kernel": body}).dimensions == (expected,)


def test_the_command_line_replaces_and_takes_out():
    yaml = {
        "model": ["se_tcn", "tcn"],
        "model.se_window": {"low": 8, "high": 64, "when": {"model": "se_tcn"}},
    }
    yaml |= {"seed": [1, 2], "loss.gamma": [1.0, 2.0], "optim.lr": None}
    found, fixed = read(yaml, "loss.gamma=3", "model.se_window=4,16")
    assert [d.path for d in found.dimensions] == ["model", "model.se_window", "seed"]
    assert found.dimensions[1].choices == (4, 16)
    assert found.dimensions[1].when == (("model", ("se_tcn",)),)
    assert fixed == ["loss.gamma=3"]


def test_conditions_on_what_does_not_vary_are_decided_at_once():
    yaml = {"model.se_window": {"values": [8, 16], "when": {"model": "se_tcn"}}}
    yaml |= {"model.levels": {"values": [3, 4], "when": {"model.se_window": 8}}}
    assert [d.when for d in space(yaml).dimensions] == [(), (("model.se_window", (8,)),)]
    assert space(yaml, "model=tcn").dimensions == ()
    assert space(yaml, "model=tcn,linear").dimensions[1:] == ()
    assert space({"seed": {"values": [1, 2], "when": {"optim.lr": 0.002}}}).dimensions[0].when == ()
    assert (
        space(
            {"seed": {"values": [1, 2], "when": {"features.ofi": True}}}, "~features.ofi"
        ).dimensions
        == ()
    )


@pytest.mark.parametrize(
    ("overrides", "stays"),
    [
        ([], True),
        (["features=[zoo]"], True),
        (["features=[book]"], False),
        (["~features.amihud"], True),
    ],
)
def test_a_set_is_known_by_its_columns(overrides, stays):
    yaml = {"features.kyle_lambda": {"values": [True, False], "when": {"features": "trades_only"}}}
    assert bool(space(yaml, *overrides).dimensions) is stays


def test_conditions_stand_before_what_depends_on_them():
    yaml = {
        "model.se_window": {"values": [8, 16], "when": {"model": "se_tcn"}},
        "seed": [1],
        "model": ["tcn", "se_tcn"],
    }
    found = space(yaml)
    assert [d.path for d in found.dimensions] == ["seed", "model", "model.se_window"]
    assert found.grid() == [
        {"seed": 1, "model": "tcn"},
        {"seed": 1, "model": "se_tcn", "model.se_window": 8},
        {"seed": 1, "model": "se_tcn", "model.se_window": 16},
    ]


# What they mistype


@pytest.mark.parametrize(
    ("yaml", "overrides", "message"),
    [
        (
            {"model.chanels": [1]},
            [],
            "model.chanels: no such path in the config, did you mean 'model.channels'?",
        ),
        (
            {},
            ["optim.rate=1,2"],
            "optim.rate: no such path in the config, did you mean 'optim.lr'?",
        ),
        ({}, ["zzz=1,2"], "zzz: no such path in the config; there are seed, features"),
        (
            {"model.se_window": [4]},
            ["model=tcn"],
            "model.se_window: no such path with model=tcn; it exists with model=se_tcn",
        ),
        (
            {},
            ["model.se_window=4,8", "model=tcn,mlp"],
            "no such path with model=tcn or mlp; it exists with model=se_tcn",
        ),
        (
            {},
            ["model=tcn,se_tcn", "model.se_window=4,8"],
            "model.se_window: does not exist with model=tcn; say in a file",
        ),
        (
            {},
            ["features=[micro],[book]", "features.ofi=true,false"],
            "features.ofi: does not exist with features=[book]",
        ),
        ({}, ["model=tcn,se_tnc"], "model: no such choice 'se_tnc', did you mean 'se_tcn'?"),
        (
            {},
            ["features=[micro,bok],[micro]"],
            "features: no such choice 'bok', did you mean 'book'?",
        ),
        ({"model": {"low": 1, "high": 2}}, [], "model: is a choice among linear, mlp, se_tcn, tcn"),
        ({"seed": {"low": 3, "high": 3}}, [], "seed: low must be < high, got low=3, high=3"),
        (
            {"seed": {"low": 0, "high": 3, "log": True}},
            [],
            "seed: a logarithmic range needs low > 0, got low=0",
        ),
        (
            {"seed": {"low": 1, "high": 9, "log": True, "step": 2}},
            [],
            "seed: step and log exclude each other",
        ),
        ({"seed": {"low": 1, "high": 9, "step": 9}}, [], "seed.step: must be at most high - low"),
        ({"seed": {"low": 1, "high": 9, "step": 0}}, [], "seed.step: must be > 0, got 0"),
        ({"seed": {"low": 1, "high": "9"}}, [], "seed.high: must be a number, got '9'"),
        ({"seed": {"low": 1}}, [], "seed.high: must be a number, got None"),
        ({"seed": {"low": 1, "high": 9, "log": 1}}, [], "seed.log: must be true or false, got 1"),
        (
            {"seed": {"low": 1, "high": 9, "stp": 1}},
            [],
            "seed.stp: no such key beside low and high, did you mean 'step'?",
        ),
        ({"seed": {"values": [1], "low": 9}}, [], "seed.low: no such key beside values"),
        ({"seed": {"values": 3}}, [], "seed.values: must be a list, got 3"),
        ({"seed": []}, [], "seed: has no values"),
        ({"seed": 3}, [], "seed: must be a list of values"),
        ({"seed": [1, 2, 1]}, [], "seed: 1 stands twice"),
        ({"seed": [1, 1.0]}, [], "seed: 1.0 stands twice"),
        ({"seed": [True, 1]}, [], "seed: 1 stands twice"),
        ({"seed": [math.nan]}, [], "seed: values must be finite, got nan"),
        ({"seed": {"values": [1], "when": "model"}}, [], "seed.when: must map paths to values"),
        (
            {"seed": {"values": [1], "when": {"modl": "tcn"}}},
            [],
            "seed.when: modl: no such path in the space, did you mean 'model'?",
        ),
        (
            {"seed": {"values": [1], "when": {"model": "tnc"}}},
            [],
            "seed.when: model: no such choice 'tnc', did you mean 'tcn'?",
        ),
        (
            {"seed": {"values": [1], "when": {"model": "mlp"}}, "model": ["tcn"]},
            [],
            "seed.when: model: must be one of tcn, got mlp",
        ),
        (
            {
                "seed": {"values": [1], "when": {"loss.gamma": 9}},
                "loss.gamma": {"low": 1, "high": 3},
            },
            [],
            "must be from 1 to 3, got 9",
        ),
        (
            {
                "seed": {"values": [1], "when": {"loss.gamma": 1}},
                "loss.gamma": {"values": [1], "when": {"seed": 1}},
            },
            [],
            "in a circle: seed (when loss.gamma)",
        ),
        ({}, ["seed=tag(lg,interval(1,2))"], "seed: the one tag is log"),
        ({}, ["seed=tag(log,choice(1,2))"], "seed: the one tag is log"),
        ({}, ["seed=shuffle(1,2)"], "seed: shuffle() would make another study"),
        ({}, ["seed=range(3,1)"], "seed: range(3,1,1) has no values"),
        ({}, ["seed=glob(*)"], "seed: glob() picks among the choices of a group, and seed is none"),
        ({}, ["model=glob(x*)"], "and none fits of linear, mlp, se_tcn, tcn"),
        ({}, ["~model=tcn,mlp"], "~model=tcn,mlp: takes out or varies, not both"),
        ({}, ["seed=1,2", "seed=4"], "seed: given twice on the command line"),
        ({}, ["sweep.n_trials=1,2"], "sweep.n_trials=1,2: belongs to the sweep"),
        ({}, ["launcher=local,slurm"], "belongs to the sweep"),
        ({}, ["hydra/launcher=a,b"], "belongs to the sweep"),
    ],
)
def test_mistakes_say_what_where_and_how_to_mend(yaml, overrides, message):
    assert message in refusal(yaml, *overrides)


def test_all_mistakes_come_at_once():
    lines = refusal({"model.chanels": [1], "seed": []}, "bars=dolar,tick").splitlines()
    assert len(lines) == 3


def test_a_grid_needs_values():
    found = space(None, "optim.lr=interval(1e-4,1e-2)", "seed=1,2")
    with pytest.raises(SpecError, match=r"optim.lr: a grid needs values: .* from 0.0001 to 0.01"):
        found.grid()
    with pytest.raises(SpecError, match="more than 100,000 points"):
        space(None, "seed=range(0,1000000)").grid()


# Points and values

CLEAN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
KEYS = st.from_regex(r"[a-z][a-z0-9_/@.-]{0,6}", fullmatch=True).filter(
    lambda k: k not in ("nan", "inf", "null", "true")
)
NESTED = st.recursive(
    CLEAN, lambda c: st.lists(c, max_size=3) | st.dictionaries(KEYS, c, max_size=3), max_leaves=6
)


@given(NESTED)
@settings(max_examples=300, deadline=None)
def test_hydra_reads_back_what_is_written(value):
    read_back = heard([f"x={value_text(value)}"])["x"]
    assert read_back == value
    assert repr(read_back) == repr(value)


@st.composite
def finite_dimensions(draw):
    dimensions = []
    for i in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            values = draw(st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True))
            dimensions.append(
                Dimension(f"p{i}", choices=tuple(values), texts=tuple(map(str, values)))
            )
        else:
            low, step = draw(st.integers(-5, 5)), draw(st.integers(1, 3))
            high = low + draw(st.integers(step, 7))
            dimensions.append(Dimension(f"p{i}", low=low, high=high, step=step, integer=True))
    return dimensions


@given(finite_dimensions())
@settings(deadline=None)
def test_a_grid_is_the_product(dimensions):
    lists = [
        d.choices if d.choices is not None else range(int(d.low), int(d.high) + 1, int(d.step))
        for d in dimensions
    ]
    expected = [
        dict(zip([d.path for d in dimensions], row, strict=True))
        for row in itertools.product(*lists)
    ]
    assert Space(tuple(dimensions)).grid() == expected


SEARCHED = {
    "model": ["se_tcn", "tcn"],
    "model.se_window": {"low": 8, "high": 128, "log": True, "when": {"model": "se_tcn"}},
    "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "optim.betas": [[0.9, 0.999], [0.8, 0.99]],
    "features.ofi": [True, False],
    "features": [["micro"], ["micro", "book"]],
    "loss.alpha": ["none", "balanced"],
}


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_what_a_trial_suggests_is_what_hydra_reads(seed):
    found = space(SEARCHED)
    point = found.suggest(
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    )
    told = heard(found.overrides(point))
    assert ("model.se_window" in point) is (point["model"] == "se_tcn")
    assert ("features.ofi" in told) is (not point["features.ofi"])
    assert {p: scalar(v) for p, v in told.items() if p != "features.ofi"} == {
        p: v for p, v in point.items() if p != "features.ofi"
    }
    assert found.fits(point) == []
    assert found.point(point) == point


def test_grid_points_belong_to_their_distributions():
    found = space(
        {
            "labels.width": {"low": 0.1, "high": 1.05, "step": 0.1},
            "seed": {"low": 1, "high": 8, "step": 3},
        }
    )
    points = found.grid()
    assert [p["labels.width"] for p in points[::3]] == [
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1.0,
    ]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in points:
        study.enqueue_trial(point)
        assert found.suggest(study.ask()) == point
    assert set(found.distributions()) == {"labels.width", "seed"}


def test_points_of_others_are_checked_before_they_are_tried():
    found = space(SEARCHED)
    assert (
        found.fits(
            {"model": "tcn", "optim.lr": 1e-3, "features": ["micro"], "optim.betas": [0.9, 0.999]}
        )
        == []
    )
    lines = "\n".join(
        found.fits(
            {
                "model": "tcn",
                "model.se_window": 8,
                "optim.lr": 1,
                "model.dropout": 0.15,
                "optm.lr": 1,
                "features.ofi": 1,
            }
        )
    )
    assert "optm.lr: no such path in the space, did you mean 'optim.lr'?" in lines
    assert "model.se_window: exists only with model=se_tcn, got model=tcn" in lines
    assert "optim.lr: must be from 0.0001 to 0.01, got 1" in lines
    assert "model.dropout: must be 0.0 plus a multiple of 0.1, got 0.15" in lines
    assert "features.ofi: must be one of true, false, got 1" in lines
    assert (
        "model.se_window: must be a whole number, got 8.5"
        in found.fits({"model.se_window": 8.5})[0]
    )
    with pytest.raises(SpecError, match=r"optim.lr: must be a number, got fast"):
        found.point({"optim.lr": "fast"})


def test_the_defaults_are_a_point():
    found = space(SEARCHED | {"seed": [7, 8]})
    assert found.defaults(BASE, CHOICES) == {
        "model": "se_tcn",
        "model.se_window": 64,
        "model.dropout": 0.1,
        "optim.lr": 0.002,
        "optim.betas": "[0.9,0.999]",
        "features.ofi": True,
        "loss.alpha": "none",
    }


def test_a_space_survives_json():
    found = space(SEARCHED, "+x=a,'1',null,2.5", "seed=range(0,9,2)")
    assert Space.from_plain(json.loads(json.dumps(found.plain()))) == found
    assert json.loads(json.dumps(found.plain())) == found.plain()


# The proof on composed configs


class Compose:
    """Refuses what `refuse` says and counts."""

    def __init__(self, refuse=lambda told: None):
        self.refuse, self.calls = refuse, 0

    def __call__(self, overrides):
        self.calls += 1
        told = heard(overrides)
        reason = self.refuse(told)
        if reason:
            raise SpecError(reason)
        return told


def test_a_sound_space_costs_its_longest_list():
    compose = Compose()
    configs = check_space(space(SEARCHED), compose, seed=0)
    assert compose.calls == len(configs) <= 6
    for path, values in [
        ("model", {"se_tcn", "tcn"}),
        ("model.se_window", {8, 128}),
        ("model.dropout", {0.0, 0.5}),
    ]:
        assert {c[path] for c in configs if path in c} == values


def test_values_that_need_each_other_are_found():
    def refuse(told):
        if told["seed"] == 4 and told["loss.gamma"] != 3.0:
            return "seed: 4 needs gamma 3"
        return None

    check_space(
        space({"seed": [1, 2, 3, 4], "loss.gamma": [1.0, 2.0, 3.0]}), Compose(refuse), seed=1
    )


def test_values_that_can_never_be_valid_are_listed():
    def refuse(told):
        bad = [
            f"{path}: must be smaller, got {told[path]}"
            for path in ("seed", "loss.gamma")
            if told[path] > 2
        ]
        return "\n".join(bad)

    compose = Compose(refuse)
    with pytest.raises(SpecError) as error:
        check_space(
            space({"seed": [1, 2, 3], "loss.gamma": {"low": 1, "high": 9}}), compose, seed=0
        )
    assert set(str(error.value).splitlines()) == {
        "seed: must be smaller, got 3",
        "loss.gamma: must be smaller, got 9",
    }
    assert compose.calls <= 30


def test_one_choice_of_several_may_be_wrong():
    compose = Compose(
        lambda told: "data.path: must be given" if told["experiment"] == "binance_capture" else None
    )
    with pytest.raises(SpecError, match=r"^experiment=binance_capture: data.path: must be given$"):
        check_space(space(None, "experiment=glob(*)"), compose, seed=0)


def test_a_space_without_dimensions_is_one_point():
    assert check_space(Space(()), Compose(), seed=0) == [{}]
    assert Space(()).grid() == [{}]
    with pytest.raises(SpecError, match="no"):
        check_space(Space(()), Compose(lambda told: "no"), seed=0)


def test_a_base_that_never_composes_is_said_once():
    compose = Compose(lambda told: "data.path: must be given")
    with pytest.raises(SpecError) as error:
        check_space(space(SEARCHED), compose, seed=0)
    assert str(error.value).count("data.path") == 1
    assert compose.calls <= 12


def test_a_value_goes_through_the_real_parse():
    def compose(overrides):
        return make_config(TrainConfig, overrides).plain()

    configs = check_space(
        space({"labels.width": [0.5, 1.5], "features.ofi": [True, False]}), compose, seed=0
    )
    assert {c["labels"]["width"] for c in configs} == {0.5, 1.5}
    assert {"ofi" in c["features"] for c in configs} == {True, False}
    with pytest.raises(
        SpecError, match=r"model.dropout: must be less than or equal to 0.9, got 1.5"
    ):
        check_space(space({"model.dropout": {"low": 0.0, "high": 1.5}}), compose, seed=0)
