"""Every kind of sweep and every shipped YAML: they parse, draw by their seed alone, and search what
composes.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys

import optuna
import pytest
from omegaconf import OmegaConf

from hft.config.compose import compose, make_config, to_plain
from hft.config.configs import TrainConfig
from hft.config.groups import read_groups
from hft.config.overrides import parse_overrides
from hft.space import check_space, read_space
from hft.spec import Room
from hft.study.sweep import trial_seed
from hft.system.conf import CONF

ROOM = Room("hft.study.sweep")
KINDS = ROOM.names()
FINITE = {"model.channels": [16, 32, 64], "seed": [1, 2]}


@functools.cache
def read_sweep(kind, *overrides, conf=CONF):
    composed = compose([f"sweep={kind}", *overrides], conf=conf)
    plain = OmegaConf.to_container(OmegaConf.create({**composed, "hydra": None}), resolve=True)[
        "sweep"
    ]
    return ROOM.load(plain["kind"]).model_validate_json(json.dumps(plain))


@pytest.fixture(params=KINDS)
def sweep(request):
    return read_sweep(request.param)


def objective(params):
    """Best in the middle of every range, and at the first of every choice."""
    return -sum((value - 0.5) ** 2 for value in params.values())


def run(sweep, seeds, *, objectives=1):
    """Points of one worker in a fresh study of two continuous parameters, a new sampler for
    each.
    """
    study = optuna.create_study(directions=["maximize"] * objectives)
    points = []
    for seed in seeds:
        study.sampler = sweep.sampler(seed)
        trial = study.ask()
        point = {name: trial.suggest_float(name, 0, 1) for name in ("a", "b")}
        study.tell(trial, [objective(point)] * objectives)
        points.append(tuple(point.values()))
    return points


def short(sweep):
    """The sweep with a start-up that a test reaches the end of."""
    fields = {name: 4 for name in ("n_startup", "population") if name in type(sweep).model_fields}
    return sweep.model_copy(update=fields)


def test_the_yaml_is_of_its_kind(sweep):
    assert (CONF / "sweep" / f"{sweep.kind}.yaml").is_file()
    assert sweep.prunes == {"asha": "epoch", "folds": "unit"}.get(sweep.kind, "")
    assert len(sweep.directions()) == len(sweep.objectives)
    assert bool(sweep.space) is (sweep.kind != "grid")


def test_the_same_seeds_draw_the_same_points(sweep):
    sweep = short(sweep)
    seeds = [trial_seed(0, number) for number in range(8)]
    assert run(sweep, seeds) == run(sweep, seeds)


def test_other_seeds_draw_other_points(sweep):
    sweep = short(sweep)
    first, second = (run(sweep, [trial_seed(seed, n) for n in range(8)]) for seed in (0, 1))
    assert not set(first) & set(second)


def test_a_seed_per_trial_proposes_no_point_twice(sweep):
    n_trials = 12 if sweep.kind == "gp" else 40
    points = run(short(sweep), [trial_seed(3, number) for number in range(n_trials)])
    assert len(set(points)) == n_trials


def test_a_sampler_takes_conditional_spaces_and_several_workers(sweep):
    sweep, study = short(sweep), optuna.create_study()
    for number in range(12):
        study.sampler = sweep.sampler(trial_seed(0, number))
        trials = [study.ask(), study.ask()]
        for trial in trials:
            kind = trial.suggest_categorical("model", ["se_tcn", "tcn"])
            depth = trial.suggest_int("depth", 1, 64, log=True) if kind == "tcn" else 0
        for trial in trials:
            study.tell(trial, float(depth))
    assert len(study.trials) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_trial_of_any_length_has_a_pruner(sweep, kind):
    for n_steps in (1, 2, 7, 4000):
        study = optuna.create_study(direction="maximize", pruner=sweep.pruner(n_steps))
        trial = study.ask()
        for step in range(min(n_steps, 50)):
            trial.report(1.0, step)
            assert not trial.should_prune()
        study.tell(trial, 1.0)


def test_start_up_stays_light():
    code = (
        "import hft.study.sweep, hft.space, sys\n"
        "print([m for m in ('optuna', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def shipped_space(kind, *overrides, conf=CONF):
    given = parse_overrides(list(overrides))
    fixed = [o.input_line for o in given if not o.is_sweep_override()]
    composed = compose([f"sweep={kind}", *fixed], full_tree=True, conf=conf)
    choices, yaml = (
        dict(composed.hydra.runtime.choices),
        OmegaConf.to_container(composed.sweep.space),
    )
    return read_space(
        yaml, given, base=to_plain(composed), choices=choices, known=read_groups(conf)
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "grid"])
def test_shipped_spaces_compose_and_parse(kind):
    space, fixed = shipped_space(kind)
    assert fixed == []
    calls = []

    def to_config(overrides):
        calls.append(overrides)
        return make_config(TrainConfig, overrides).plain()

    configs = check_space(space, to_config, seed=0)
    assert 2 <= len(configs) <= len(calls) <= 8
    defaults = space.defaults(
        make_config(TrainConfig, []).plain(), {"model": "se_tcn", "loss": "focal"}
    )
    assert space.fits(defaults) == []
    assert len(defaults) >= len(space.dimensions) - 2


def test_the_shipped_space_follows_the_command_line():
    paths = {
        d.path
        for d in shipped_space("tpe", "model=linear", "loss=cross_entropy", "features=[book]")[
            0
        ].dimensions
    }
    assert not {p for p in paths if p.startswith(("model", "features"))} | (
        {"loss", "loss.gamma"} & paths
    )
    wider = shipped_space("tpe", "model=mlp,se_tcn")[0]
    when = {d.path: dict(d.when) for d in wider.dimensions}
    assert when["model.channels"] == {"model": ("se_tcn", "mlp")}
    assert "model.kernel" in when
    assert when["model.se_window"] == {"model": ("se_tcn",)}


def test_a_file_of_ones_own_builds_on_a_shipped_one(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    body = (
        "defaults: [tpe, _self_]\nn_trials: 7\nspace:\n  model: null\n  ++optim.lr: [0.01]\n"
        "  seed: {low: 0, high: 9}\n"
    )
    (conf / "sweep" / "mine.yaml").write_text(body)
    sweep = read_sweep("mine", conf=conf)
    assert (sweep.kind, sweep.n_trials, sweep.n_startup) == ("tpe", 7, 20)
    dimensions = {d.path: d for d in shipped_space("mine", conf=conf)[0].dimensions}
    assert "model" not in dimensions
    assert dimensions["optim.lr"].choices == (0.01,)
    assert {"seed", "model.se_window"} <= set(dimensions)
