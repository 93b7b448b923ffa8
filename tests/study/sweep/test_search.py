"""What the kinds are for: they find better points than chance, prune what is behind, and keep to
constraints.
"""

from __future__ import annotations

import optuna
import pytest

from hft.study.sweep import trial_seed
from tests.study.sweep.test_conformance import read_sweep, short


def search(sweep, value, n_trials, *, constrain=None, seed=0, directions=("maximize",)):
    """A study of `value(a, b)` on the unit square, `constrain(a, b) > 0` being infeasible."""
    study = optuna.create_study(directions=directions)
    for number in range(n_trials):
        study.sampler = sweep.sampler(trial_seed(seed, number))
        trial = study.ask()
        point = [trial.suggest_float(name, 0, 1) for name in ("a", "b")]
        if constrain:
            trial.set_constraint("limit", constrain(*point))
        study.tell(trial, value(*point))
    return study


@pytest.mark.parametrize(
    ("kind", "n_trials"), [("tpe", 60), ("asha", 60), ("folds", 60), ("gp", 16)]
)
def test_searches_beat_chance(kind, n_trials):
    def value(a, b):
        return -((a - 0.3) ** 2) - (b - 0.7) ** 2

    found = search(short(read_sweep(kind)), value, n_trials)
    chance = search(read_sweep("random"), value, n_trials)
    late, late_chance = ([t.value for t in s.trials[n_trials // 2 :]] for s in (found, chance))
    assert sum(late) > sum(late_chance) / 2
    assert found.best_value >= chance.best_value - 0.01


@pytest.mark.parametrize(
    ("kind", "n_trials", "objectives"), [("tpe", 60, 1), ("gp", 16, 1), ("nsga2", 80, 2)]
)
def test_what_breaks_a_constraint_is_marked_and_avoided(kind, n_trials, objectives):
    """The gain lies where the constraint forbids: a > 0.5."""
    study = search(
        short(read_sweep(kind)),
        (lambda a, b: a) if objectives == 1 else (lambda a, b: (a, -abs(b - 0.5))),
        n_trials,
        constrain=lambda a, b: a - 0.5,
        directions=["maximize"] * objectives,
    )
    infeasible = {t.number for t in study.trials if t.params["a"] > 0.5}
    assert infeasible == {
        t.number for t in study.trials if any(c > 0 for c in t.constraints.values())
    }
    assert not infeasible & {t.number for t in study.best_trials}
    late = [t for t in study.trials if t.number >= n_trials // 2]
    # A search may feel along the bound itself.
    share = sum(t.params["a"] > 0.6 for t in late) / len(late)
    free = search(
        short(read_sweep(kind)),
        lambda a, b: [a] * objectives,
        n_trials,
        directions=["maximize"] * objectives,
    )
    free_share = sum(t.params["a"] > 0.6 for t in free.trials[n_trials // 2 :]) / len(late)
    assert share < 0.5 < free_share


def report(study, values):
    """Reports until pruned; how many steps the trial lived."""
    trial = study.ask()
    for step, value in enumerate(values):
        trial.report(value, step)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return step + 1
    study.tell(trial, sum(values) / len(values))
    return len(values)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_asha_ends_what_is_behind(direction, sign):
    sweep = read_sweep("asha")
    study = optuna.create_study(
        study_name="s", direction=direction, sampler=sweep.sampler(0), pruner=sweep.pruner(20)
    )
    good = [
        report(study, [sign * (1 + i / 100 + step / 10) for step in range(20)]) for i in range(12)
    ]
    bad = [report(study, [sign * -5.0] * 20) for _ in range(6)]
    assert max(good) == 20
    assert min(bad) == sweep.min_epochs + 1  # the first look is at step min_epochs, counted from 0
    assert max(bad) < 20


def test_folds_ends_what_is_worse_on_the_same_units():
    sweep = read_sweep("folds")
    study = optuna.create_study(
        direction="maximize", sampler=sweep.sampler(0), pruner=sweep.pruner(8)
    )
    units = [3.0, -1.0, 2.0, 0.5, 4.0, -2.0, 1.0, 2.5]
    assert report(study, units) == 8
    assert report(study, [u - 1 - i / 9 for i, u in enumerate(units)]) == 4
    assert report(study, [u + 1 for u in units]) == 8


def test_folds_prunes_nothing_that_it_cannot_compare():
    sweep = read_sweep("folds")
    study = optuna.create_study(
        direction="maximize", sampler=sweep.sampler(0), pruner=sweep.pruner(8)
    )
    assert report(study, [1.0] * 3) == 3
    assert report(study, [0.0] * 8) == 8  # units that the best trial has not
    assert report(study, [float("-inf")] * 8) == 8


def test_nsga2_finds_a_front():
    def both(sweep):
        return search(sweep, lambda a, b: (a, a**2 + b), 160, directions=("maximize", "minimize"))

    found, chance = both(short(read_sweep("nsga2"))), both(read_sweep("random"))
    assert len(found.best_trials) > 5
    late, late_chance = (sum(t.params["b"] for t in s.trials[40:]) for s in (found, chance))
    assert late < 0.8 * late_chance  # the front lies where b is 0
