"""The settings of a sweep, and every mistake of a command line at once."""

from __future__ import annotations

import pytest

from hft.config.compose import compose
from hft.search.launcher.local import Local
from hft.search.settings import read_command, read_sweep
from hft.spec import SpecError
from hft.study.sweep.tpe import Tpe


def test_settings_are_of_the_chosen_kinds():
    settings = read_sweep(compose(["sweep=tpe", "launcher=local", "sweep.n_trials=7"]))
    assert isinstance(settings.sweep, Tpe)
    assert isinstance(settings.launcher, Local)
    assert settings.sweep.n_trials == 7


def test_an_interpolation_to_nothing_is_named():
    with pytest.raises(SpecError, match=r"^sweep.seed: an interpolation does not resolve"):
        read_sweep(compose(["sweep=tpe", "sweep.seed=${nothing.here}"]))


def mistakes(*overrides):
    composed = compose(list(overrides), full_tree=True)
    with pytest.raises(SpecError) as error:
        read_command(composed, choices=composed.hydra.runtime.choices, overrides=list(overrides))
    return str(error.value).splitlines()


def test_mistakes_of_a_sweep_and_of_its_config_come_together():
    lines = mistakes("sweep=tpe", "sweep.n_trials=-1", "seed=-1")
    assert [line.split(":")[0] for line in lines] == ["sweep.n_trials", "seed"]


def test_a_sweep_that_nobody_set_is_not_read():
    assert [line.split(":")[0] for line in mistakes("seed=-1")] == ["seed"]
