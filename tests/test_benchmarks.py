"""Every benchmark runs, at tiny sizes, and refuses sides that disagree; no times are asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import benchmarks
from benchmarks import (
    Result,
    backtest,
    bars,
    claims,
    dense,
    labels,
    losses,
    race,
    start,
    sweep,
    training,
)
from benchmarks.__main__ import main
from hft.learning.model.se_tcn import SeTcn

ROOT = Path(__file__).parents[1]
TINY = {
    "bars": {"n_trades": 3_000, "n_loop": 1_100, "repeats": 1},
    "labels": {"n_trades": 6_000, "bar_size": 20, "n_loop": 40, "repeats": 1},
    "dense": {
        "chunk": 8,
        "batch_chunks": 2,
        "long_chunk": 16,
        "windows": (8,),
        "compared": 8,
        "repeats": 1,
    },
    "backtest": {"n_trades": 20_000, "n_quotes": 30_000, "bar_size": 20, "repeats": 1},
    "training": {
        "cases": ["default fp32 eager", "default bf16 eager"],
        "repeats": 1,
        "chunk": 8,
        "batch_chunks": 2,
    },
    "losses": {
        "hours": 1,
        "epochs": 1,
        "seeds": 2,
        "overrides": ("model.levels=1", "model.se_window=4", "model.channels=4"),
    },
    "claims": {"n_trials": 60, "early": 3, "late": 8, "around": 3},
    "sweep": {
        "n_uneven": 4,
        "longest_s": 0.2,
        "n_smoke": 4,
        "day": ("seed=1",),
        "overrides": ("trainer.epochs=1",),
    },
    "start": {"repeats": 1, "overrides": ("trainer.epochs=1",)},
}
MODULES = {
    "bars": bars,
    "labels": labels,
    "dense": dense,
    "backtest": backtest,
    "training": training,
    "losses": losses,
    "claims": claims,
    "sweep": sweep,
    "start": start,
}


@pytest.fixture(autouse=True)
def _small_ceilings(monkeypatch):
    monkeypatch.setattr(training, "matmul_size", lambda device: 32)
    monkeypatch.setattr(training, "copy_size", lambda device: 1024)


SLOW = {
    "sweep": [pytest.mark.slow],  # starts workers
    "start": [pytest.mark.slow],  # compiles every kernel in a process of its own, twice
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW.get(name, [])) for name in benchmarks.NAMES]
)
def test_measures_and_its_sides_agree(name, request):
    sizes = dict(TINY[name])
    if name == "sweep":  # a market that is built already: to build one takes seconds
        sizes["overrides"] += (f"paths.cache={request.getfixturevalue('smoke').root / 'cache'}",)
    found = MODULES[name].measure(**sizes)
    results = found if isinstance(found, list) else [found]
    assert len({result.name for result in results}) == len(results)
    for result in results:
        assert result.name.startswith(name)
        assert all(rate > 0 for rate in result.rates.values())
        assert set(result.expected) <= {"", *list(result.rates)[1:]}
        assert json.loads(json.dumps(result.plain(), allow_nan=False))["unit"] == result.unit


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_shipped_sizes_are_arguments_of_measure(name):
    assert set(MODULES[name].FULL) == set(MODULES[name].QUICK) <= set(TINY[name])


def test_bars_of_another_group_by_are_refused(monkeypatch):
    right = bars.group_by
    monkeypatch.setattr(
        bars, "group_by", lambda *a, **k: right(*a, **k).with_columns(pl.col("high") + 1)
    )
    with pytest.raises(AssertionError, match="disagree"):
        bars.measure(**TINY["bars"])


def test_labels_of_another_loop_are_refused(monkeypatch):
    right = labels.loop
    monkeypatch.setattr(labels, "loop", lambda *a: [(2 - y, t_end, r) for y, t_end, r in right(*a)])
    with pytest.raises(AssertionError, match="disagree"):
        labels.measure(**TINY["labels"])


def test_losses_of_unequal_examples_are_refused(monkeypatch):
    right, seen = losses.train, iter(range(100))
    monkeypatch.setattr(losses, "train", lambda *a: replace(right(*a), examples=next(seen)))
    with pytest.raises(AssertionError, match="different numbers of examples"):
        losses.measure(**TINY["losses"])


def test_claims_of_other_points_are_refused(monkeypatch):
    right = claims.through_optuna
    monkeypatch.setattr(claims, "through_optuna", lambda *a: ([{"optim.lr": 1.0}], right(*a)[1]))
    with pytest.raises(AssertionError, match="disagree on the points that random gives"):
        claims.measure(**TINY["claims"])


def _account(cpu_s, **parts):
    return {"cpu_s": cpu_s, "wall_s": 9.0, "parts": parts, "metrics": {"test/net": 1.0}}


def test_starts_are_compared_in_cpu_seconds_and_split_by_part(monkeypatch):
    accounts = {"cold": 20.0, "warm data": 10.0, "warm code": 6.0}
    order = iter(accounts.values())
    runs = []

    def run_smoke(root, kernels, overrides):
        runs.append((kernels == "off", kernels))
        return _account(next(order), fit=2.0, **{"import torch": 3.0})

    monkeypatch.setattr(start, "run_smoke", run_smoke)
    whole, warm, _ = start.measure(repeats=1, overrides=())
    assert [off for off, _ in runs] == [False, True, False]
    assert runs[0] == runs[2]  # the last run reads what the first one kept
    assert (whole.rates, whole.met()) == (
        {"warm code": 6.0, "warm data": 10.0, "cold": 20.0},
        True,
    )
    assert warm.rates == {"all": 6.0, "import torch": 3.0, "fit": 2.0}


def test_starts_with_other_metrics_are_refused(monkeypatch):
    values = iter(range(9))
    monkeypatch.setattr(
        start, "run_smoke", lambda *_: _account(1.0) | {"metrics": {"test/net": next(values)}}
    )
    with pytest.raises(AssertionError, match="disagree on the metrics"):
        start.measure(repeats=1, overrides=())


def test_a_part_inside_another_interrupts_it(monkeypatch):
    now = iter([1.0, 1.0, 2.0, 4.0, 7.0, 11.0, 16.0])
    monkeypatch.setattr(start.time, "process_time", lambda: next(now))
    clock = start.Clock()
    with clock.part("import torch"), clock.part("import numba"):
        pass
    clock.settle()
    assert clock.spent == {
        "interpreter": 1.0,
        "else": 6.0,
        "import torch": 6.0,
        "import numba": 3.0,
    }


def _note(began, ended):
    return {"claimed": began - 0.5, "composed": began, "began": began, "ended": ended}


def test_slots_are_busy_until_the_last_trial_starts():
    # Slot one: 0-4, 5-9; slot two: 0-6, 7-8. From 0 to 7: 6 of 7 s twice.
    notes = [_note(0, 4), _note(0, 6), _note(5, 9), _note(7, 8)]
    assert sweep.busy(notes) == pytest.approx(12 / 14)


def test_overhead_is_what_passes_beside_the_fit():
    def note(end):
        times = {"claimed": end - 0.9, "composed": end - 0.8, "began": end - 0.75, "fit": end - 0.5}
        return times | {"fitted": end - 0.1, "ended": end, "landed": end + 0.05, "stages_s": 0.2}

    result = sweep.split_overhead([note(end) for end in (1.0, 2.0, 3.0, 4.0)], "data")
    assert result.own == pytest.approx(600)  # a trial a second, 0.4 s of it in the fit
    parts = [
        rate for side, rate in result.rates.items() if side not in ("beyond training", "(training)")
    ]
    assert sum(parts) == pytest.approx(600)
    assert (result.cost, result.met()) == (True, False)


def test_windows_that_see_less_are_refused(monkeypatch):
    """A network that reaches further back than it says gives other gradients in windows than in
    chunks.

    Its convolutions do, that is: what only the squeezes reach, a mean of means, is less than
    float32 resolves.
    """
    right = training.load_tcn().receptive_field
    monkeypatch.setattr(
        dense,
        "build_network",
        lambda spec: _understated(training.build_network(spec), right(spec) // 4),
    )
    with pytest.raises(AssertionError, match="gradients"):
        dense.measure(**TINY["dense"])


def _understated(network, bars):
    network.receptive_field = bars
    return network


def test_the_network_by_path_is_the_one_of_the_spec():
    plain = vars(training.settings("default"))
    torch.manual_seed(training.SEED)
    real = SeTcn(**plain).build(training.N_FEATURES)
    measured = training.build_network(SimpleNamespace(**plain))
    assert measured.receptive_field == real.receptive_field
    assert list(measured.state_dict()) == list(real.state_dict())
    x = torch.randn(1, 30, training.N_FEATURES)
    assert torch.equal(measured.eval()(x), real.eval()(x))


def test_work_is_counted():
    x, weight = torch.ones(10, 4), torch.ones(4, 3, requires_grad=True)
    flops, least, eager = training.count_work(
        lambda: (x @ weight).relu().sum(), torch.device("cpu"), "fp32"
    )
    assert flops == 2 * 2 * 10 * 4 * 3  # forward, and the weight's gradient
    assert least == 4 * 2 * (10 * 4 + 4 * 3 + 10 * 3)
    assert eager > least


def test_the_network_has_the_arithmetic_of_its_layers():
    spec = training.settings("default")
    c, k, hidden, f = (
        spec.channels,
        spec.kernel,
        spec.channels // spec.se_reduction,
        training.N_FEATURES,
    )
    taps = 2 * k * c * (f + (2 * spec.levels - 1) * c)
    least = taps + 2 * f * c + spec.levels * 4 * c * hidden + 2 * c * training.N_CLASSES
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        training.build_network(spec)(torch.randn(1, 50, f))
    assert least * 50 <= flops.get_total_flops() <= 1.3 * least * 50


def test_training_runs_without_the_rest_of_the_house():
    code = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in "
        "('polars', 'pydantic', 'hydra', 'omegaconf', 'rich', 'wandb', 'hft'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from benchmarks import training\n"
        "print(training.build_network(training.settings('default')).receptive_field)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == SeTcn(**vars(training.settings("default"))).receptive_field


def test_race_takes_turns_after_an_untimed_call():
    calls = []
    timed = race(
        {"a": lambda: calls.append("a") or 1, "b": lambda: calls.append("b") or 2}, repeats=2
    )
    assert "".join(calls) == "ababab"
    assert (timed["a"].output, timed["b"].output) == (1, 2)


def test_expectations_are_ratios_or_own_rates():
    result = Result(
        "x", "rows/s", {"hft": 30.0, "loop": 2.0}, "data", expected={"loop": 10.0, "": 20.0}
    )
    assert result.met()
    assert result.plain()["ratios"] == {"loop": 15.0}
    assert not Result(
        "x", "rows/s", {"hft": 30.0, "loop": 4.0}, "data", expected={"loop": 10.0}
    ).met()


def test_a_cost_must_stay_under_what_is_expected():
    result = Result(
        "x", "ms", {"hft": 3.0, "other": 2.0}, "data", expected={"": 4.0, "other": 1.25}, cost=True
    )
    assert (result.met(""), result.met("other"), result.met()) == (True, False, False)


def test_scores_are_shown_with_their_spread():
    result = Result("x", "nats", {"a": 1.5, "b": 1.25}, "data", spread={"a": 0.5, "b": 0.25})
    assert (result.shown("a"), result.compared("b")) == ("1.5000 +- 0.5000 nats", "0.2500 above it")


def test_prints_a_table_and_one_json_line(monkeypatch, capsys):
    monkeypatch.setattr(bars, "QUICK", TINY["bars"])
    assert main(["bars", "--quick"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert any("polars" in line for line in lines)
    report = json.loads(last)
    assert report["quick"] is True
    assert report["bars"]["rates"]["hft"] > 0


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["barz"])
    assert "barz: no such benchmark; one of bars, labels" in capsys.readouterr().err
