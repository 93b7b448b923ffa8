"""What Hydra would merge without a word is refused, and the message says who set what."""

from __future__ import annotations

import pytest

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.config.conflicts import overlay_conflicts, refuse_sweep_keys
from hft.spec import SpecError
from tests.config.refused import refusal


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


def test_numbers_meant_for_another_kind_say_who_set_what():
    assert refusal("experiment=smoke", "bars=dollar") == (
        "bars: experiment=smoke chose 'tick' and sets bars.size=10; the command line chose "
        "'dollar', for which these were not meant; give each on the command line too, or take it "
        "out: ~bars.size"
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
