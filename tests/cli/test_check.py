"""Every shipped experiment parses, and one that does not is named."""

from __future__ import annotations

import shutil

import pytest

from hft.cli import check
from hft.cli.check import check_experiments
from hft.system.conf import CONF


def test_every_shipped_experiment_parses(capsys):
    assert check.main([]) == 0
    assert capsys.readouterr().out == "every shipped experiment parses\n"


BROKEN = {
    "typo": (
        "labels:\n  widht: 2\n",
        "labels.widht: TripleBarrier has no such field, did you mean 'width'?",
    ),
    "lost": ("defaults:\n  - override /bars: tik\n", "bars/tik"),
    "no_yaml": ("a: [1\n", "not YAML, "),
    "interpolation": ("seed: ${nothing.here}\n", "an interpolation does not resolve"),
}


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    conf = shutil.copytree(CONF, tmp_path_factory.mktemp("check") / "conf")
    for name, (body, _) in BROKEN.items():
        (conf / "experiment" / f"{name}.yaml").write_text("# @package _global_\n" + body)
    return check_experiments(conf)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named_with_its_file(problems, name):
    said = [line for line in problems if line.startswith(f"conf/experiment/{name}.yaml")]
    assert BROKEN[name][1] in "\n".join(said)


def test_the_status_tells(monkeypatch, capsys):
    monkeypatch.setattr(check, "check_experiments", lambda: ["conf/experiment/a.yaml: wrong"])
    assert check.main([]) == 1
    assert capsys.readouterr().out == "conf/experiment/a.yaml: wrong\n"
