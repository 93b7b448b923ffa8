"""From the command line to one typed config, or to one list of mistakes that says who set what."""

from __future__ import annotations

import optuna
import pytest

from hft.config.compose import Composer, compose, make_config, to_plain
from hft.config.configs import TrainConfig
from hft.config.groups import read_groups
from hft.search.settings import read_sweep
from hft.space import read_space
from hft.system.conf import CONF
from tests.config.refused import refusal, write_experiment


def test_the_command_line_wins_over_the_experiment():
    config = make_config(TrainConfig, ["experiment=smoke", "bars.size=20"])
    assert (config.bars.kind, config.bars.size, config.model.channels) == ("tick", 20, 8)


def test_what_the_parse_sees_is_plain():
    plain = to_plain(compose(["experiment=smoke"], full_tree=True))
    assert not {"hydra", "sweep", "launcher"} & set(plain)
    pending = [plain]
    while pending:
        value = pending.pop()
        assert type(value) in (dict, list, str, int, float, bool, type(None))
        pending += (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        )


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["features=[trades_only]", "~features.amihud"], "~amihud"),
        (["features=[trades_only]", "features.amihud=null"], "~amihud"),
        (["features=[trades_only,book]"], "mlofi_5"),
        (["features=[book]"], "mlofi_5"),
    ],
)
def test_sets_are_chosen_joined_and_thinned(overrides, names):
    features = make_config(TrainConfig, overrides).features
    assert (names.removeprefix("~") in features) is not names.startswith("~")
    assert ("kyle_lambda" in features) is ("trades_only" in overrides[0])


def test_a_number_inside_a_set():
    features = make_config(TrainConfig, ["features.kyle_lambda.window=20"]).features
    assert features["kyle_lambda"].window == 20
    assert features["amihud"].window == 50


def test_no_features_at_all_is_refused():
    assert refusal("features=[]").startswith("features: ")


def test_transforms_may_be_none():
    assert make_config(TrainConfig, ["transforms=[]"]).transforms == {}


def test_typos_in_an_experiment_file_are_all_named(conf):
    write_experiment(
        conf,
        "labels:\n  widht: 2\nbars:\n  size: -1\nmodell:\n  channels: 3\n"
        "trainer:\n  epochs: many\n",
    )
    lines = refusal("experiment=mine", conf=conf).splitlines()
    assert lines == [
        "bars.size: must be greater than 0, got -1",
        "labels.widht: TripleBarrier has no such field, did you mean 'width'?",
        "modell: TrainConfig has no such field, did you mean 'model'?",
        "trainer.epochs: must be a valid integer, got 'many'",
    ]


def test_an_interpolation_to_nothing_is_named(conf):
    write_experiment(conf, "labels:\n  width: ${nothing.here}\n")
    assert refusal("experiment=mine", conf=conf).startswith(
        "labels.width: an interpolation does not resolve"
    )


SEARCHES = sorted(p.stem for p in (CONF / "sweep").glob("[a-z]*.yaml") if p.stem != "grid")


@pytest.mark.parametrize("name", SEARCHES)
def test_a_composer_composes_what_one_command_line_does(name):
    """Over the shipped spaces: groups, conditions, switches and numbers."""
    fixed = [f"sweep={name}", "tags=[a]", "features=[micro]"]
    composed = compose(fixed, full_tree=True)
    choices, base = dict(composed.hydra.runtime.choices), to_plain(composed)
    space, _ = read_space(
        read_sweep(composed).sweep.space, [], base=base, choices=choices, known=read_groups(CONF)
    )
    composer, study = (
        Composer(TrainConfig, fixed),
        optuna.create_study(sampler=optuna.samplers.RandomSampler(0)),
    )
    for _ in range(4):
        overrides = space.overrides(space.suggest(study.ask()))
        assert composer(overrides).plain() == make_config(TrainConfig, [*fixed, *overrides]).plain()


@pytest.mark.parametrize(
    "overrides",
    [
        ["bars=volume", "bars.size=3"],
        ["features=[trades_only]", "features.amihud=null", "~features.ofi"],
        ["+experiment.x=1"],
        ["optim.lrr=1"],
        ["++optim.lrr=1"],
        ["bars=volumee"],
        ["labels.width=-1"],
        ["experiment=smoke", "bars=dollar"],
        ["experiment=smoke", "model.channels=4"],
        ["labels.pt=${labels.width}", "labels.width=2"],
        ["transforms=[]"],
    ],
)
def test_a_composer_refuses_what_one_command_line_does(overrides):
    def outcome(make):
        try:
            return make(overrides).plain()
        except Exception as error:
            return type(error), str(error)

    fixed = ["seed=3", "bars.size=7"]
    composer = Composer(TrainConfig, fixed)
    assert outcome(composer) == outcome(lambda o: make_config(TrainConfig, [*fixed, *o]))
    assert outcome(composer) == outcome(composer)  # what was kept is not changed by use
