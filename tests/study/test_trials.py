"""Trials as facts: what became of each, their order, what tells them apart, one frame of all."""

from __future__ import annotations

import polars as pl
import pytest

from hft.space import Dimension, Space
from hft.study.trials import (
    Labels,
    brief,
    common_cause,
    importances,
    next_lines,
    ranked,
    total,
    trials_frame,
)
from tests.study.small_study import end, every_fate, small_study

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_the_frame_tells_every_fate(folder):
    frame = trials_frame(every_fate(folder))
    assert frame["number"].to_list() == list(range(10))
    assert frame["state"].to_list() == [
        "complete", "complete", "pruned", "retried", "complete",
        "failed", "complete", "running", "retried", "waiting",
    ]  # fmt: skip
    assert frame["select/log_loss"].to_list()[:7] == [0.1, 0.5, 0.95, None, 0.8, None, 0.7]
    assert frame["feasible"].to_list()[:7] == [False, True, None, None, True, None, True]
    assert frame["constraint/select/trades"].to_list()[:4] == [3.0, 0.0, 0.0, None]
    assert frame.schema["model.channels"] == pl.Int64
    assert frame["model.channels"].to_list()[6] is None  # exists for the other model only
    assert frame["model"].to_list()[9] == "mlp"  # a waiting one has what it was enqueued with
    assert frame["retry_of"].to_list() == [*[None] * 4, 3, *[None] * 4, 8]
    assert frame["attempt"].to_list()[4] == 1
    assert frame["folder"].to_list()[0] == "maker_v1/0000"
    assert frame["folder"].to_list()[9] is None
    assert frame["reason"].to_list()[5].endswith("</script>")  # one line of it
    assert frame.schema["started"] == pl.Datetime("us", "UTC")


METRICS = {"select/log_loss": 0.6, "select/mcc": 0.25, "select/net_bps_day@vip0": None}


def test_the_frame_has_the_metrics_of_each_trial(folder):
    study = small_study(folder)
    end(study, 0.6, metrics=METRICS)
    end(study, reason="nan")
    end(study, 0.5, metrics=METRICS | {"select/log_loss": 0.5, "select/net_bps_day@vip0": -3.0})
    frame = trials_frame(study)
    assert frame.columns[2:5] == ["select/log_loss", "select/mcc", "select/net_bps_day@vip0"]
    assert frame["select/log_loss"].to_list() == [0.6, None, 0.5]  # the objective, once
    assert frame["select/mcc"].to_list() == [0.25, None, 0.25]
    assert frame["select/net_bps_day@vip0"].to_list() == [None, None, -3.0]


def test_an_empty_study_has_a_frame_with_its_columns(folder):
    frame = trials_frame(small_study(folder))
    assert len(frame) == 0
    assert {"number", "select/log_loss", "model.channels", "reason"} <= set(frame.columns)


def test_the_order_puts_what_may_be_used_first(folder):
    assert [t.number for t in ranked(every_fate(folder))] == [1, 6, 4, 0, 2, 5]


def test_a_larger_value_is_first_where_it_is_better(folder):
    study = small_study(folder, objectives=TWO[:1])
    for value in (1.0, 3.0, 2.0):
        end(study, value)
    assert [t.values[0] for t in ranked(study)] == [3.0, 2.0, 1.0]


def test_labels_leave_out_what_all_share(folder):
    study = every_fate(folder)
    trials = study.trials()
    labels = Labels(study, trials[:2])
    assert labels(trials[1]) == "model.channels=8 optim.lr=0.01235"
    alone = Labels(study, trials[:1])  # nothing is shared yet
    assert alone(trials[0]).startswith("model=tcn")


@pytest.mark.parametrize(
    ("dimension", "value", "shown"),
    [
        ({"low": 1e-5, "high": 1.0}, 0.0014463729103746, "0.001446"),
        ({"low": 1e-5, "high": 1.0}, 1.2345678e-5, "1.235e-05"),
        ({"low": 0.0, "high": 1e6}, 25043.7218, "25044"),
        ({"low": 0, "high": 10**6, "integer": True}, 123456, "123456"),
        ({"low": 0.0, "high": 1.0, "step": 0.1}, 0.1 + 0.2, "0.3"),
        ({"low": 1000.0, "high": 2000.0, "step": 0.5}, 1000.5, "1000.5"),
        ({"choices": (0.123456789, 1), "texts": ("0.123456789", "1")}, 0.123456789, "0.123456789"),
    ],
)
def test_what_is_drawn_has_four_digits_and_what_was_typed_all(dimension, value, shown):
    assert brief(Dimension("optim.lr", **dimension), value) == shown


def test_importances_find_what_matters(folder):
    space = Space((Dimension("a", low=0.0, high=1.0), Dimension("b", low=0.0, high=1.0)))
    study = small_study(folder, space=space)
    for k in range(20):
        end(study, k / 20, params={"a": (k * 7 % 20) / 20, "b": k / 20})
        assert (importances(study) == {}) == (k < 9)
    shares = importances(study)
    assert shares["b"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_the_total_is_that_of_the_latest_call(folder):
    study = small_study(folder, n_trials=5)
    assert total(study) == 5
    study.optuna.set_user_attr("n_trials", 8)
    assert total(study) == 8
    space = Space((Dimension("seed", choices=(1, 2, 3), texts=("1", "2", "3")),))
    totals = [
        total(small_study(folder.parent / f"g{n}", kind="grid", n_trials=n, space=space))
        for n in (0, 2, 7)
    ]
    assert totals == [3, 2, 3]


def test_reasons_that_differ_in_numbers_are_one_cause():
    assert (
        common_cause(["nan at step 12", "no data", "nan at step 3.5"]) == "2 of 3: nan at step 12"
    )
    assert common_cause([]) == ""


def test_the_lines_to_paste_survive_a_shell(folder):
    study = every_fate(folder)
    assert next_lines(study, study.trials()[1]) == [
        "python backtest.py ckpt=maker_v1/0001",
        "python train.py experiment=smoke 'tags=[a,b]' model=tcn model.channels=8 "
        "optim.lr=0.0123456789 seed=7",
    ]
