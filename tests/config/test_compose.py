"""From the command line to one typed config, or to one list of mistakes that says who set what."""

from __future__ import annotations

import shutil

import optuna
import pytest
import yaml

from hft.config.compose import (
    CONF,
    Composer,
    compose,
    explain,
    make_config,
    overlay_conflicts,
    refuse_sweep_keys,
    to_plain,
)
from hft.config.configs import TrainConfig
from hft.runs.jobs import read_sweep
from hft.space import read_groups, read_space
from hft.spec import SpecError, UserError


@pytest.fixture
def conf(tmp_path):
    """A copy of conf/ to write overlays into."""
    return shutil.copytree(CONF, tmp_path / "conf")


def write_experiment(conf, body):
    (conf / "experiment" / "mine.yaml").write_text("# @package _global_\n" + body)


def refusal(*overrides, conf=CONF):
    with pytest.raises(SpecError) as error:
        make_config(TrainConfig, list(overrides), conf=conf)
    return str(error.value)


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


@pytest.mark.parametrize("chosen", ["features=[micro,mine]", "features=[mine,micro]"])
def test_two_definitions_of_one_name_are_refused(conf, chosen):
    (conf / "features" / "mine.yaml").write_text("amihud: {kind: amihud, window: 7}\n")
    assert "features.amihud: defined differently in conf/features/" in refusal(chosen, conf=conf)
    assert "mine.yaml" in refusal(chosen, conf=conf)
    assert "trades_only.yaml" in refusal(chosen, conf=conf)  # which micro includes
    assert make_config(TrainConfig, ["features=[mine]"], conf=conf).features["amihud"].window == 7


def test_a_set_may_be_reached_twice(conf):
    (conf / "features" / "mine.yaml").write_text(
        "defaults: [trades_only, _self_]\nofi: {kind: ofi, window: 1}\n"
    )
    assert list(make_config(TrainConfig, ["features=[micro,mine]"], conf=conf).features)
    assert len(make_config(TrainConfig, ["features=zoo"]).features) == 23


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
        "labels:\n  widht: 2\nbars:\n  size: -1\nmodell:\n  channels: 3\ntrainer:\n  epochs: many\n",
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


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_an_overlay_that_does_not_exist_is_refused(shell, group):
    ended = shell("train.py", f"{group}=smok")
    assert ended.status == 2
    assert f"Could not find '{group}/smok'" in ended.err
    assert "Traceback" not in ended.err


def test_what_hydra_refuses_by_a_bare_error_is_a_message_too(shell):
    ended = shell("train.py", "features=null")
    assert ended.status == 2
    assert ended.err == "error: Config group override must be a string or a list. Got NoneType\n"


def test_numbers_meant_for_another_kind_say_who_set_what():
    assert refusal("experiment=smoke", "bars=dollar") == (
        "bars: experiment=smoke chose 'tick' and sets bars.size=10; the command line chose 'dollar', for which these "
        "were not meant; give each on the command line too, or take it out: ~bars.size"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["bars=dollar", "bars.size=5e5"],
        ["bars=tick"],
        ["labels=fixed_horizon", "labels.horizon=5", "~labels.span"],
        ["debug=fdr", "logger=csv"],
    ],
)
def test_a_kind_may_be_replaced_when_nothing_is_left_over(overrides):
    make_config(TrainConfig, ["experiment=smoke", *overrides])


def test_conflicts_and_other_mistakes_come_together():
    lines = refusal("experiment=smoke", "bars=dollar", "seed=-1").splitlines()
    assert [line.split(":")[0] for line in lines] == ["bars", "seed"]


def test_no_overlay_no_conflict():
    assert overlay_conflicts({"bars": "dollar", "experiment": None}, ["bars=dollar"]) == []


@pytest.mark.parametrize("override", ["sweep.kind=grid", "+sweep.n_trials=3", "++launcher=slurm"])
def test_sweep_keys_without_a_sweep_are_refused(override):
    with pytest.raises(SpecError, match=r"only a sweep reads this; add -m or take it out"):
        refuse_sweep_keys([override])


def test_other_keys_may_begin_like_a_sweep():
    refuse_sweep_keys(["sweeper=1", "bars.sweep=2"])


def read(composed, **given):
    raise AssertionError("only what Hydra refused is composed again")


def test_what_a_user_can_mend_is_printed(capsys):
    assert explain(UserError("bars: too few\ntry more"), "train", read) == 2
    assert capsys.readouterr().err == "error: bars: too few\n       try more\n"


def test_an_interrupt_has_its_own_status(capsys):
    assert explain(KeyboardInterrupt(), "train", read) == 130
    assert capsys.readouterr().err == "interrupted; hft runs shows how to go on\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), SystemExit(1)])
def test_what_only_we_can_mend_is_raised(error):
    with pytest.raises(type(error)):
        explain(error, "train", read)


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


def test_a_file_that_is_no_yaml_is_named(capsys):
    def read(*_, **__):
        raise AssertionError

    with pytest.raises(yaml.YAMLError) as error:
        yaml.safe_load("a: [1")
    assert explain(error.value, "train", read) == 2
    assert "line 1" in capsys.readouterr().err
