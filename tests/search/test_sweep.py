"""Sweeps from the command line, one trial at a time in this process: what is refused, continued,
kept and told.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.runs.folder import Run
from hft.study.study import open_study
from hft.system.commands import typed
from tests.smoke import QUIET, folders

# One epoch of one small model: half a second a trial.
SMOKE = ("experiment=smoke", "launcher=inline", "trainer.epochs=1", *QUIET)
SEARCH = (
    "sweep=random",
    "sweep.space=null",
    "sweep.enqueue=[]",
    "optim.lr=tag(log,interval(1e-4,1e-2))",
)
NAME = "sweep.study=maker_v1"


@pytest.fixture
def sweep(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        from tests.smoke import ROOT

        return shell(str(ROOT / "train.py"), "-m", *SMOKE, *folders(tmp_path), *arguments)

    return run


def study_in(tmp_path, name="maker_v1"):
    return open_study(tmp_path / "sweeps" / name)


def only_study(tmp_path):
    (folder,) = [path for path in (tmp_path / "sweeps").iterdir() if path.is_dir()]
    return open_study(folder)


def rates(study):
    return [trial.params["optim.lr"] for trial in study.trials()]


@pytest.mark.slow
def test_the_same_command_goes_on_to_an_exact_total(sweep, tmp_path):
    assert sweep(*SEARCH, NAME, "sweep.n_trials=2").status == 0
    ended = sweep(*SEARCH, NAME, "sweep.n_trials=4")
    assert ended.status == 0, ended.err
    assert "4 trials, 2 to begin" in ended.err
    study = study_in(tmp_path)
    assert study.counts().complete == study.counts().points == 4
    again = sweep(*SEARCH, NAME, "sweep.n_trials=4")
    assert again.status == 0
    assert "all trials are done" in again.err
    assert study_in(tmp_path).counts().points == 4
    # In one go, with the same seed, the same points.
    assert sweep(*SEARCH, "sweep.study=other", "sweep.n_trials=4").status == 0
    assert rates(study_in(tmp_path, "other")) == rates(study)
    assert len(set(rates(study))) == 4


def test_each_trial_is_a_run_and_the_best_can_be_scored(sweep, shell, tmp_path):
    ended = sweep(*SEARCH, NAME, "sweep.n_trials=2", "objective=select/log_loss")
    assert ended.status == 0, ended.err
    study = study_in(tmp_path)
    (best,) = study.best()
    for trial in study.trials():
        run = Run(study.trial_folder(trial.number))
        assert (run.id, run.state) == (f"maker_v1/{trial.number:04d}", "done")
        assert run.read_config()["optim"]["lr"] == trial.params["optim.lr"]
        assert run.read_metrics()["select/log_loss"] == trial.value
        assert set(run.read_predictions()["split"]) == {"tune", "select"}
        assert run.read_daily().height > 0
    assert ended.out.splitlines()[-1] == (
        f"best: run=maker_v1/{best.number:04d} select/log_loss={best.value:.6g}  "
        f"next: {typed('backtest', f'ckpt=maker_v1/{best.number:04d}')}"
    )
    table = pl.read_parquet(study.folder / "results.parquet")
    assert table["select/log_loss"].min() == best.value
    assert "<script src" not in (study.folder / "report.html").read_text()
    assert (
        json.loads((study.folder / "best" / "config.json").read_text())["config"]["optim"]["lr"]
        == best.params["optim.lr"]
    )
    scored = shell("backtest.py", f"ckpt=maker_v1/{best.number:04d}", *folders(tmp_path))
    assert scored.status == 0, scored.err
    assert (study.trial_folder(best.number) / "backtest" / "test" / "scorecard.json").is_file()


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (["model.channels=16"], "model.channels: 8 -> 16"),
        (["optim.lr=tag(log,interval(1e-4,1e-1))"], "space.optim.lr.high: 0.01 -> 0.1"),
        (["sweep.seed=5"], "sweep.seed: 0 -> 5"),
    ],
)
def test_another_space_or_config_is_another_study(sweep, tmp_path, changed, difference):
    assert sweep(*SEARCH, NAME, "sweep.n_trials=1").status == 0
    given = [a for a in SEARCH if a.split("=")[0] != changed[0].split("=")[0]]
    ended = sweep(*given, *changed, NAME, "sweep.n_trials=2")
    assert ended.status == 2
    assert difference in ended.err
    assert "sweep.study=new" in ended.err
    assert study_in(tmp_path).counts().points == 1


@pytest.mark.slow
def test_a_study_without_a_name_is_known_by_what_it_asks(sweep, tmp_path):
    for n_trials in (1, 2):
        assert sweep(*SEARCH, f"sweep.n_trials={n_trials}").status == 0
    assert only_study(tmp_path).counts().points == 2
    assert only_study(tmp_path).name.startswith("random-")
    assert sweep(*SEARCH, "sweep.study=new", "sweep.n_trials=1").status == 0
    assert len(list((tmp_path / "sweeps").iterdir())) == 2
    assert sweep(*SEARCH, "model.channels=16", "sweep.n_trials=1").status == 0
    assert len(list((tmp_path / "sweeps").iterdir())) == 3


def test_a_pruned_trial_is_no_error_and_keeps_what_it_has(sweep, tmp_path):
    # The first four are the yardstick; after them come steps so long that the loss grows.
    points = ",".join(["{optim.lr:1e-6}"] * 4 + ["{optim.lr:0.1}"] * 4)
    ended = sweep(
        "sweep=asha", "sweep.space=null", "optim.lr=tag(log,interval(1e-6,1e-1))",
        f"sweep.enqueue=[{points}]", NAME, "sweep.n_trials=8", "sweep.min_epochs=1",
        "sweep.reduction_factor=2", "trainer.epochs=4", "trainer.patience=4",
        "objective=select/log_loss", "seed=1",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert "error" not in ended.err.lower()
    study = study_in(tmp_path)
    pruned = [trial for trial in study.trials() if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert len(trial.intermediate_values) < 4
        run = Run(study.trial_folder(trial.number))
        assert run.state == "pruned"
        assert run.read_metrics()["train/epochs"] == len(trial.intermediate_values)
        assert (run.fold_folder(0, 1) / "weights.safetensors").is_file()
    assert study.counts().complete + study.counts().pruned == 8


def test_all_failing_ends_it_early_with_the_common_cause(sweep, tmp_path):
    ended = sweep("bars.size=1000000", "seed=1,2,3,4,5,6", NAME)
    assert ended.status == 1
    counts = study_in(tmp_path).counts()
    assert (counts.failed, counts.points) == (3, 3)
    assert "all of the first 3 trials failed; 3 of 3 with: " in ended.err
    assert "gives no bar" in ended.err
    assert "maker_v1/0000/log.txt" in ended.err or "log.txt" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_points_to_try_first(sweep, tmp_path):
    assert sweep(*SEARCH, NAME, "sweep.n_trials=2").status == 0
    first = study_in(tmp_path)
    (best,) = first.best()
    arguments = [a for a in SEARCH if not a.startswith("sweep.enqueue")]
    ended = sweep(
        *arguments,
        "sweep.study=second",
        "sweep.n_trials=4",
        "sweep.enqueue=[defaults,{optim.lr:0.003},study:maker_v1]",
    )
    assert ended.status == 0, ended.err
    tried = rates(study_in(tmp_path, "second"))
    shipped = make_config(TrainConfig, ["experiment=smoke"]).optim.lr
    assert tried[:3] == [shipped, 0.003, best.params["optim.lr"]]
    refused = sweep(*arguments, "sweep.study=third", "sweep.enqueue=[{optim.lr:7}]")
    assert refused.status == 2
    assert "sweep.enqueue: optim.lr" in refused.err
    assert not (tmp_path / "sweeps" / "third").exists()


@pytest.mark.slow
def test_its_time_is_a_budget_over_all_calls(sweep, tmp_path):
    ended = sweep(*SEARCH, NAME, "sweep.n_trials=100", "sweep.timeout=1s")
    assert ended.status == 0, ended.err
    counts = study_in(tmp_path).counts()
    assert 1 <= counts.complete == counts.points < 100  # what ran when it was spent came to its end
    assert "its time is spent (sweep.timeout=1s); a greater one goes on" in ended.err
    assert sweep(*SEARCH, NAME, "sweep.n_trials=100", "sweep.timeout=1s").status == 0
    assert study_in(tmp_path).counts().points == counts.points
    assert (
        sweep(*SEARCH, NAME, f"sweep.n_trials={counts.points + 1}", "sweep.timeout=1h").status == 0
    )
    assert study_in(tmp_path).counts().complete == counts.points + 1


@pytest.mark.slow
def test_what_breaks_a_constraint_is_never_the_best(sweep, tmp_path):
    turnover = "select/turnover_day"
    assert sweep(*SEARCH, NAME, "sweep.n_trials=3", "objective=select/log_loss").status == 0
    free = study_in(tmp_path)
    runs = {
        t.number: Run(free.trial_folder(t.number)).read_metrics()[turnover] for t in free.trials()
    }
    (best,) = free.best()
    limit = runs[best.number] - 1e-6  # what the best one breaks
    ended = sweep(
        *SEARCH, "sweep.study=bound", "sweep.n_trials=3", "objective=select/log_loss",
        f"sweep.constraints={{{turnover}: {{max: {limit}}}}}",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    study = study_in(tmp_path, "bound")
    for trial in study.trials():
        assert trial.constraints[turnover] == pytest.approx(runs[trial.number] - limit)
    assert best.number not in [trial.number for trial in study.best()]


def test_two_objectives_give_a_front(sweep, tmp_path):
    ended = sweep(
        "sweep=nsga2",
        "sweep.space=null",
        "labels.width=interval(0.5,2)",
        "sweep.n_trials=4",
        "sweep.population=2",
        NAME,
    )
    assert ended.status == 0, ended.err
    study = study_in(tmp_path)
    values = np.array([trial.values for trial in study.trials()])
    for trial in study.best():
        better = (values[:, 0] > trial.values[0]) & (values[:, 1] < trial.values[1])
        assert not better.any()
    for trial in study.trials():
        metrics = Run(study.trial_folder(trial.number)).read_metrics()
        assert trial.values == [
            metrics["select/net_bps_day@binance_usdm_vip0"],
            metrics["select/turnover_day"],
        ]


@pytest.mark.slow
def test_seeds_are_one_trial_with_the_mean_for_its_value(sweep, tmp_path):
    assert (
        sweep(*SEARCH, NAME, "sweep.n_trials=1", "seeds=2", "objective=select/log_loss").status == 0
    )
    (trial,) = study_in(tmp_path).trials()
    run = Run(study_in(tmp_path).trial_folder(0))
    each = [run.read_unit(0, seed)[0]["select/log_loss"] for seed in (0, 1)]
    assert trial.value == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=tpee"], "sweep/tpee"),
        (["sweep=random", "sweep.n_trails=3"], "did you mean 'n_trials'?"),
        (["sweep=random", "launcher.worker=3"], "launcher.worker"),
        (["sweep=random", "model.chanels=choice(4,8)"], "did you mean 'model.channels'?"),
        (["sweep=random", "model.channels=choice(4,-8)"], "model.channels"),
        (
            ["sweep=random", "objective=select/log_loss", "labels.width=interval(0.5,2)"],
            "not comparable across different labels",
        ),
        (
            ["sweep=random", "sweep.objectives=[select/sharp]", "seed=1,2"],
            "no run of this sweep logs 'select/sharp'",
        ),
        (
            ["sweep=random", "sweep.objectives=[tune/log_loss]", "seed=1,2"],
            "no run of this sweep logs 'tune/log_loss'",
        ),
        (
            ["sweep=random", "sweep.constraints={select/trade: {min: 3}}", "seed=1,2"],
            "did you mean 'select/trades'?",
        ),
        (["sweep=grid", "optim.lr=interval(1e-4,1e-2)"], "a grid needs values"),
        (
            ["sweep=random", "sweep.storage=postgresql+psycopg://me:secret@host/db", "seed=1,2"],
            "PGPASSFILE",
        ),
        (["sweep=random", "sweep.n_trials=0", "seed=1,2"], "n_trials must be > 0"),
        (
            ["sweep=random", "sweep.objectives=[select/net_bps]", "seed=1,2"],
            "did you mean 'select/net_bps_day@",
        ),
        (["sweep=random"], "nothing varies, so all 50 trials would be the same run"),
        (["sweep=random", "model.channels=choice(4)"], "every path of it has one value"),
        (["sweep=random", "sweep.enqueue=[study:nope]", "seed=1,2"], "sweep.enqueue: "),
        (
            ["sweep=random", "model=se_tcn,tcn"],
            "keep to the experiment's, model=se_tcn on the command line",
        ),
        (["sweep=_common"], "its YAML has no kind"),
        (["sweep=random", "sweep.timeout=5", "seed=1,2"], "must be a number > 0 with s, m, h or d"),
        (
            ["sweep=random", "paths.sweeps=/dev/null/x", "seed=1,2"],
            "choose another: paths.sweeps=<folder>",
        ),
        (
            ["sweep=asha", "sweep.objectives=[select/log_loss,select/trades]", "seed=1,2"],
            "prunes by one objective",
        ),
    ],
)
def test_what_can_never_be_right_is_refused_before_the_first_trial(
    sweep, tmp_path, arguments, message
):
    space = (
        ["sweep.space=null"]
        if "sweep=grid" not in arguments and arguments != ["sweep=tpee"]
        else []
    )
    ended = sweep(*arguments, *space)
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert "secret" not in ended.err + ended.out
    assert not (tmp_path / "sweeps").exists()


def test_a_study_is_a_folder_whose_name_may_be_a_number(sweep, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "2024").write_text("mine")
    ended = sweep("seed=1", "sweep.study=2024")
    assert (ended.status, "sweeps/2024 is a file, no study" in ended.err) == (2, True), ended.err
    assert (tmp_path / "sweeps" / "2024").read_text() == "mine"
