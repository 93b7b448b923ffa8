"""One reading of overrides: path, group, line."""

from __future__ import annotations

import pytest

from hft.config.overrides import group_of, line_of, of_groups, parse_overrides, path_of


@pytest.mark.parametrize(
    ("override", "path", "group"),
    [
        ("seed=1", "seed", "seed"),
        ("+model.channels=32", "model.channels", "model"),
        ("++labels.pt=${labels.width}", "labels.pt", "labels"),
        ("~features.amihud", "features.amihud", "features"),
        ("sweep.space.optim.lr=a=b", "sweep.space.optim.lr", "sweep"),
        ("hydra/launcher=x", "hydra/launcher", "hydra"),
        ("features@more=[a]", "features@more", "features"),
    ],
)
def test_path_and_group(override, path, group):
    assert (path_of(override), group_of(override)) == (path, group)


def test_overrides_of_some_groups_come_without_marks():
    given = ["+sweep.n_trials=3", "sweeper=1", "launcher=slurm", "bars.sweep=2"]
    assert of_groups(given, ("sweep", "launcher")) == ["sweep.n_trials=3", "launcher=slurm"]


def test_the_line_is_kept_as_typed():
    lines = ["+a.b='c d'", "~e", "bars=tick,dollar"]
    assert [line_of(override) for override in parse_overrides(lines)] == lines
