"""A worker's trial: what it leaves in its folder and in the storage, when it takes none, and how it
goes on.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
from omegaconf import OmegaConf

from hft.clock import NS_PER_DAY
from hft.config.compose import compose
from hft.config.objectives import known_metrics
from hft.dataset.splits import Split, make_periods
from hft.learning.learner import Learner
from hft.market.data.synthetic import Synthetic
from hft.runs.folder import Run, RunError
from hft.runs.money import daily_returns
from hft.runs.registry import find_run
from hft.schema import daily_columns
from hft.search.worker import count_units, redirected, run_trial
from hft.spec import UserError
from hft.study.storage import StorageError, read_address
from hft.study.sweep.asha import Asha
from hft.study.sweep.folds import Folds
from hft.system.cache import Entry
from hft.system.provenance import code_hash
from tests.smoke import figures, folders, score_run, smoke_config, train_smoke, weights
from tests.tracking.wandb_files import read_offline

MONEY = "select/net_bps_day@binance_usdm_vip0"
EPOCHS = ("trainer.epochs=4", "trainer.patience=4")
WALK = ("splits=walk_forward", "splits.folds=2", "trainer.epochs=1")


def sweep_plain(kind="random", **changes):
    """The shipped YAML of `kind` as a study has it."""
    composed = OmegaConf.to_container(compose([f"sweep={kind}"]), resolve=True)["sweep"]
    return composed | {"space": {}, "storage": "journal", "study": "maker_v1"} | changes


@dataclass
class Asked:
    """A study with one trial to run, and its driver alive."""

    root: Path
    overrides: tuple[str, ...] = ()
    sweep: dict = field(default_factory=sweep_plain)

    def __post_init__(self):
        self.folder = self.root / "sweeps" / "maker_v1"
        address = read_address("journal", self.folder)
        self.storage, self.locks = address.open(), address.locks()
        self.study = optuna.create_study(
            study_name="maker_v1",
            storage=self.storage,
            directions=["maximize"] * len(self.sweep["objectives"]),
            load_if_exists=True,
        )

    def task(self, **changes):
        number = self.study.ask().number
        return {
            "study": "maker_v1",
            "storage": "journal",
            "folder": str(self.folder),
            "number": number,
            "config": smoke_config(self.root, *self.overrides).plain(),
            "sweep": self.sweep,
            "code": code_hash(),
            "driver": "d1",
            "continue_from": None,
            "echo": False,
        } | changes

    def run(self, **changes):
        with self.locks.hold("driver-d1"):
            task = json.loads(json.dumps(self.task(**changes)))
            return json.loads(json.dumps(run_trial(task))), Run(
                self.folder / f"{task['number']:04d}"
            )

    def frozen(self, number):
        return self.study.get_trials()[number]


def stopping_at(monkeypatch, *steps, spec=Asha):
    """The sweep's pruner ends a trial that has reported one of these steps."""

    class Pruner(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.last_step in steps

    asked = []
    monkeypatch.setattr(spec, "pruner", lambda self, n_steps: asked.append(n_steps) or Pruner())
    return asked


# What it leaves


def test_a_trial_is_a_run(tmp_path, capfd):
    asked = Asked(
        tmp_path, ("seed=3",), sweep_plain(constraints={"select/trades": {"min": 1, "max": None}})
    )
    outcome, run = asked.run()
    alone = train_smoke(tmp_path, "seed=3")
    metrics = run.read_metrics()
    assert outcome["status"] == "complete", outcome
    assert outcome["values"] == [metrics[MONEY]]
    assert outcome["constraints"] == {"select/trades": 1 - metrics["select/trades"]}
    assert outcome["log"] == str(run.folder / "log.txt")
    assert asked.frozen(0).user_attrs["outcome"] == outcome
    assert asked.frozen(0).state.name == "RUNNING"  # the driver's to tell
    assert (run.id, run.state) == ("maker_v1/0000", "done")
    assert figures(run) == figures(alone)
    assert run.read_predictions().equals(alone.read_predictions())
    assert run.read_daily().equals(alone.read_daily())
    assert all(
        np.array_equal(value, weights(alone, seed=3)[name])
        for name, value in weights(run, seed=3).items()
    )
    printed = (run.folder / "log.txt").read_text()
    assert "fold-0/seed-3: calibrated" in printed
    assert "run=maker_v1/0000 " in printed
    assert "maker_v1" not in capfd.readouterr().out
    assert not list((asked.folder / "lease").iterdir())


def test_an_echoing_trial_prints_where_its_process_does(tmp_path, capfd):
    outcome, run = Asked(tmp_path).run(echo=True)
    assert "run=maker_v1/0000 " in capfd.readouterr().out
    assert outcome["log"] == ""
    assert not (run.folder / "log.txt").exists()


def test_a_trial_is_scored_repeated_and_tracked_as_one_run(tmp_path, shell):
    asked = Asked(tmp_path, ("logger=wandb", "logger.mode=offline"))
    _, run = asked.run()
    assert find_run(tmp_path / "runs", "maker_v1/0", sweeps=tmp_path / "sweeps") == run
    card = score_run(tmp_path, "maker_v1/0000")
    offline = read_offline(run.folder)
    assert offline.ids == ["maker_v1-0000"] * 2
    assert offline.group == "maker_v1"
    assert offline.summary["test/trades"] == card.trades
    ended = shell("train.py", "reproduce=maker_v1/0000", "logger=none", *folders(tmp_path))
    assert (
        f"reproduced: all {len(figures(run))} numbers of maker_v1/0000 came out the same"
        in ended.out
    ), ended.err
    ended = shell("train.py", "resume=maker_v1/0000", *folders(tmp_path))
    assert ended.status == 2
    assert (
        "only the sweep goes on with it; give its command again, with sweep.study=maker_v1"
        in ended.err
    )


# When it takes none


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_trial_that_is_not_this_workers_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("hft.runs.train.train", lambda *_, **__: pytest.fail("trained"))
    asked = Asked(tmp_path)
    outcome, run = asked.run(code="0" * 64)
    assert outcome["status"] == "refused"
    assert "hft/ here is not what study maker_v1 began with" in outcome["reason"]
    assert not run.folder.exists()
    outcome = run_trial(asked.task())
    assert "its driver's lease is not held" in outcome["reason"]
    with asked.locks.hold("trial-2"):
        outcome, _ = asked.run()
    assert "another worker is at it" in outcome["reason"]
    asked.study.tell(0, state=optuna.trial.TrialState.FAIL)
    outcome, _ = asked.run(number=0)
    assert "is FAIL" in outcome["reason"]
    number = asked.study.ask().number
    (asked.folder / f"{number:04d}").mkdir()
    outcome, _ = asked.run(number=number)
    assert outcome["status"] == "refused"
    assert "never used twice" in outcome["reason"]
    assert not any("outcome" in t.user_attrs for t in asked.study.get_trials())


def test_a_driver_that_takes_its_lease_again_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr("hft.runs.train.train", lambda *_, **__: pytest.fail("trained"))
    asked, looks = Asked(tmp_path), []
    monkeypatch.setattr(
        type(asked.locks), "is_held", lambda self, name: looks.append(name) or looks.count(name) > 1
    )
    task = asked.task()
    assert run_trial(task)["reason"] == "Failed: trained"
    assert looks == ["trial-0", "driver-d1", "driver-d1"]


def test_a_trial_that_finds_no_room_is_not_begun(tmp_path):
    asked = Asked(tmp_path)
    task = asked.task(folder=str(asked.folder))
    with asked.locks.hold("driver-d1"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hft.runs.folder.Run.begin", no_room)
        outcome = run_trial(task)
    assert outcome["status"] == "refused"
    assert "cannot be written ([Errno 28] No space left on device)" in outcome["reason"]
    assert not list(asked.folder.glob("*0000*"))


# How it fails


def test_what_fails_is_named_and_the_output_comes_back(tmp_path, monkeypatch, capfd):
    asked = Asked(tmp_path)

    def fail(error):
        def train(*_, **__):
            os.write(1, b"from below\n")
            sys.stdout.write("from above\n")
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("hft.runs.train.train", train)
            return asked.run()

    for error, reason in (
        (UserError("too short;\nload more data"), "too short;\nload more data"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (SystemExit(3), "SystemExit: 3"),
        (pl.exceptions.PanicException("oops"), "pyo3_runtime.PanicException: oops"),
    ):
        outcome, run = fail(error)
        assert (outcome["status"], outcome["values"]) == ("failed", None)
        assert outcome["reason"] == reason
        log = (run.folder / "log.txt").read_text()
        assert log.startswith("from below\nfrom above\n")
        assert ("Traceback" in log) is not isinstance(error, UserError)
        assert asked.frozen(int(run.folder.name)).user_attrs["outcome"]["reason"] == reason
    outcome, _ = fail(KeyboardInterrupt())
    assert outcome["status"] == "interrupted"
    os.write(1, b"here again\n")
    sys.stdout.write("and here\n")
    assert capfd.readouterr().out == "here again\nand here\n"


def test_a_config_that_cannot_be_parsed_fails(tmp_path):
    asked = Asked(tmp_path)
    outcome, _ = asked.run(config=smoke_config(tmp_path).plain() | {"seed": -1})
    assert outcome["status"] == "failed"
    assert outcome["reason"].startswith("seed: must be greater than or equal to 0")


def test_an_objective_without_a_value_fails(tmp_path, monkeypatch):
    asked = Asked(tmp_path, ("trainer.epochs=1",))
    monkeypatch.setattr("hft.runs.money.net_bps_day", lambda *_, **__: math.nan)
    outcome, run = asked.run()
    assert (
        outcome["reason"]
        == f"objective {MONEY}: has no finite value in this run; see its metrics.json"
    )
    assert run.state == "done"
    constrained = sweep_plain(
        objectives=["select/log_loss"], constraints={MONEY: {"min": 0.0, "max": None}}
    )
    outcome, run = asked.run(sweep=constrained)
    assert (outcome["status"], outcome["constraints"]) == ("complete", {MONEY: math.inf})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageError("storage postgresql: no answer"), "storage postgresql: no answer"),
        (
            optuna.exceptions.StorageInternalError("locked"),
            "optuna.exceptions.StorageInternalError: locked",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "OSError: [Errno 28] No space left on device",
        ),
    ],
)
def test_a_storage_that_gives_no_answer_is_no_fault_of_the_trial(
    tmp_path, monkeypatch, error, reason
):
    def gone(*_):
        raise error

    monkeypatch.setattr("hft.search.worker.Reports.report", gone)
    asked = Asked(tmp_path, ("trainer.epochs=1",), sweep_plain("asha"))
    outcome, run = asked.run()
    assert (outcome["status"], outcome["reason"]) == ("died", reason)
    assert asked.frozen(0).user_attrs["host"]
    assert (run.folder / "fold-0" / "seed-0").is_dir()  # the retry's copy goes on from there


# Pruned


def test_a_trial_is_pruned_after_an_epoch_and_keeps_what_it_has(tmp_path, monkeypatch):
    asked_for = stopping_at(monkeypatch, 5)
    asked = Asked(
        tmp_path,
        (*EPOCHS, "seeds=3"),
        sweep_plain("asha", constraints={"select/trades": {"min": 1, "max": None}}),
    )
    outcome, run = asked.run()
    assert asked_for == [12]
    assert outcome["status"] == "pruned", outcome
    assert outcome["values"] is None
    assert list(outcome["constraints"]) == ["select/trades"]
    assert run.state == "pruned"
    reported = asked.frozen(0).intermediate_values
    assert sorted(reported) == [0, 1, 2, 3, 4, 5]
    assert not (run.folder / "fold-0" / "seed-2").exists()
    units = [run.read_unit(0, seed)[0] for seed in (0, 1)]
    assert [unit["train/epochs"] for unit in units] == [4, 2]
    assert run.read_metrics()[MONEY] == pytest.approx(np.mean([unit[MONEY] for unit in units]))
    assert run.read_predictions()["seed"].unique().sort().to_list() == [0, 1]
    for seed, unit in enumerate(units):  # the value of the best epoch is that of the unit
        assert reported[4 * seed + unit["train/best_epoch"]] == unit[MONEY]
    with pytest.raises(RunError, match="trial maker_v1/0000 is pruned, not done"):
        score_run(tmp_path, "maker_v1/0000")


def test_a_class_metric_is_watched_as_well(tmp_path, monkeypatch):
    stopping_at(monkeypatch)
    asked = Asked(
        tmp_path,
        ("objective=select/log_loss",),
        sweep_plain("asha", objectives=["select/log_loss"]),
    )
    outcome, run = asked.run()
    best = run.read_metrics()["train/best_epoch"]
    assert outcome["status"] == "complete"
    assert asked.frozen(0).intermediate_values[best] == pytest.approx(outcome["values"][0])


def test_an_end_that_comes_anyway_is_no_pruning(tmp_path, monkeypatch):
    stopping_at(monkeypatch, 1)
    outcome, run = Asked(tmp_path, sweep=sweep_plain("asha")).run()
    assert (outcome["status"], run.state) == ("complete", "done")


def test_a_trial_is_pruned_between_folds(tmp_path, monkeypatch):
    asked_for = stopping_at(monkeypatch, 2, spec=Folds)
    asked = Asked(tmp_path, (*WALK, "seeds=2"), sweep_plain("folds"))
    outcome, run = asked.run()
    assert asked_for == [4]
    assert (outcome["status"], run.state) == ("pruned", "pruned")
    reported = asked.frozen(0).intermediate_values
    expected = [run.read_unit(fold, seed)[0][MONEY] for fold, seed in ((0, 0), (0, 1), (1, 0))]
    assert list(reported.values()) == expected
    assert not (run.folder / "fold-1" / "seed-1").exists()


@pytest.mark.parametrize(
    ("overrides", "units"), [((), 1), ((*WALK, "seeds=3"), 6), (("splits=cpcv",), 15)]
)
def test_units_are_counted_before_there_are_data(tmp_path, overrides, units):
    config = smoke_config(tmp_path, *overrides)
    assert (
        count_units(config) == units == len(make_periods(0, 10**15, config.splits)) * config.seeds
    )


def test_an_objective_that_no_epoch_has_is_refused(tmp_path, monkeypatch):
    stopping_at(monkeypatch)
    outcome, _ = Asked(tmp_path, sweep=sweep_plain("asha", objectives=["labels/n_eff"])).run()
    assert outcome["status"] == "failed"
    assert "labels/n_eff: has no value after an epoch" in outcome["reason"]


# Cut short


def signal_at(monkeypatch, number, *, seed, step):
    begin = Learner.begin_step

    def begin_step(learner):
        begin(learner)
        if (learner.seed, learner.step) == (seed, step):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Learner, "begin_step", begin_step)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_another_trial_goes_on_from_a_copy(tmp_path, monkeypatch, number):
    stopping_at(monkeypatch)
    settings = ("seeds=2", *EPOCHS, "trainer.chunk=128", "trainer.batch_chunks=1", "logger=csv")
    asked = Asked(tmp_path, settings, sweep_plain("asha"))
    with monkeypatch.context() as patch:
        signal_at(patch, number, seed=1, step=30)
        outcome, cut = asked.run()
    assert outcome["status"] == "interrupted"
    assert outcome["reason"].startswith(f"interrupted by {number.name} at epoch 2")
    assert outcome["exit_status"] == 128 + number
    assert cut.state == "interrupted"
    assert "go on with" not in (cut.folder / "log.txt").read_text()
    asked.study.tell(0, state=optuna.trial.TrialState.FAIL)
    again = asked.study.ask()  # was taken, and its worker had no time to begin
    again.set_user_attr("retry_of", 0)
    outcome, run = asked.run(continue_from=1)
    assert (run.id, run.state, outcome["status"]) == ("maker_v1/0002", "done", "complete")
    _, whole = asked.run()
    assert outcome["values"] == asked.frozen(3).user_attrs["outcome"]["values"]
    assert asked.frozen(2).intermediate_values == asked.frozen(3).intermediate_values
    assert figures(run) == figures(whole)
    assert run.read_daily().equals(whole.read_daily())
    assert cut.state == "interrupted"
    epochs = pl.read_csv(run.folder / "metrics.csv")["fold-0/seed-1/tune/log_loss"]
    assert (
        epochs.to_list()
        == pl.read_csv(whole.folder / "metrics.csv")["fold-0/seed-1/tune/log_loss"].to_list()
    )


def test_a_trial_whose_copy_is_elsewhere_begins_anew(tmp_path, monkeypatch):
    asked = Asked(tmp_path, ("trainer.epochs=1",))
    asked.study.ask()
    outcome, run = asked.run(continue_from=0)
    assert (outcome["status"], run.id) == ("complete", "maker_v1/0001")


def test_a_circle_of_retries_ends(tmp_path):
    """As a stranger's storage may have it; no folder to go on from."""
    asked = Asked(tmp_path, ("trainer.epochs=1",))
    for before in (1, 0):
        asked.study.enqueue_trial({}, user_attrs={"retry_of": before})
    outcome, _ = asked.run(continue_from=1)
    assert outcome["status"] == "complete", outcome


def test_output_comes_back_from_a_nested_redirection(tmp_path, capfd):
    def fail():
        with redirected(tmp_path / "outer.txt"):
            with redirected(tmp_path / "inner.txt"):
                os.write(2, b"inner\n")
            sys.stderr.write("outer\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(2, b"out\n")
    assert (tmp_path / "inner.txt").read_text() == "inner\n"
    assert (tmp_path / "outer.txt").read_text() == "outer\n"
    assert capfd.readouterr().err == "out\n"


# What a run earned by day, and what it logs


def test_days_add_up_to_the_objective(tmp_path):
    run = train_smoke(tmp_path, "seeds=2", "min_trades=1")
    config, daily, metrics = smoke_config(tmp_path), run.read_daily(), run.read_metrics()
    (split,) = make_periods(*run.read_about()["data_keys"]["span"], config.splits)
    days = (split.hull("select")[1] - split.hull("select")[0]) / NS_PER_DAY
    assert daily.schema == daily_columns(config.fees)
    assert daily["seed"].to_list() == [0, 1]
    for seed in (0, 1):
        unit, of_seed = run.read_unit(0, seed)[0], daily.filter(seed=seed)
        assert of_seed["trades"].sum() == unit["select/trades"] > 0
        for name in config.fees:
            assert of_seed[f"net_bps@{name}"].sum() == pytest.approx(
                unit[f"select/net_bps_day@{name}"] * days
            )
        # A round trip is two positions' worth, but for what the price moved.
        assert unit["select/turnover_day"] == pytest.approx(
            2 * unit["select/trades"] / days, rel=0.01
        )
    name = "select/max_drawdown_bps@binance_usdm_vip0"
    assert metrics[f"{name}/worst"] == max(run.read_unit(0, seed)[0][name] for seed in (0, 1)) > 0


def test_a_position_earns_on_the_day_that_closed_it(tmp_path):
    config = smoke_config(tmp_path)
    noon, day = NS_PER_DAY * 19_723 + NS_PER_DAY // 2, NS_PER_DAY  # of 2024-01-01
    rows = [{"ts_exit": noon, "gross_bps": 3.0}, {"ts_exit": noon + 3 * day, "gross_bps": -1.0}] * 2
    same = {
        "side": 1,
        "qty": 1.0,
        "price_entry": 1.0,
        "price_exit": 1.0,
        "maker_entry": False,
        "maker_exit": False,
    }
    ledger = pl.DataFrame([same | row | {"ts_entry": row["ts_exit"] - day} for row in rows])
    split = Split(2, {"select": ((noon - 1, noon + day), (noon + 2 * day, noon + 3 * day + 1))}, 0)
    daily = daily_returns(config, split, ledger, seed=5)
    assert [str(d) for d in daily["day"]] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
        "2024-01-04",
    ]
    assert daily["trades"].to_list() == [2, 0, 0, 2]
    assert daily["gross_bps"].to_list() == [6.0, 0.0, 0.0, -2.0]
    cost = 4 * config.fees["binance_usdm_vip0"].taker_bps
    assert daily["net_bps@binance_usdm_vip0"].to_list() == pytest.approx(
        [6.0 - cost, 0.0, 0.0, -2.0 - cost]
    )
    assert set(daily["fold"]) == {2}
    assert set(daily["seed"]) == {5}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("seeds=2", "baseline=gbdt", *WALK),
        ("labels=fixed_horizon", "labels.horizon=10", "~labels.span"),
    ],
)
def test_all_metrics_of_a_run_are_known_before(tmp_path, overrides):
    run, known = (
        train_smoke(tmp_path, *overrides),
        known_metrics(smoke_config(tmp_path, *overrides)),
    )
    metrics = run.read_metrics()
    null = {name for name, value in metrics.items() if value is None}
    spread = {f"{name}/{over}" for name in null for over in ("sd", "worst")}
    assert len(set(known)) == len(known)
    assert set(metrics) <= set(known)
    assert set(known) - set(metrics) <= spread


# The second trial of one market


@pytest.fixture
def frames_read(monkeypatch):
    """Names of cached frames that are read."""
    seen, frame = [], Entry.frame
    monkeypatch.setattr(Entry, "frame", lambda entry, name: seen.append(name) or frame(entry, name))
    return seen


def test_a_trial_of_the_same_market_reads_nothing(tmp_path, frames_read):
    asked = Asked(tmp_path)
    _, first = asked.run()
    assert {"trades", "bars", "features", "labels"} <= set(frames_read)
    frames_read.clear()
    asked.overrides = ("model.channels=4", "seed=1")
    _, second = asked.run()
    assert frames_read == []
    assert second.read_metrics()["train/stages_s"] < 0.1
    asked.overrides = ("labels.width=0.5",)
    asked.run()
    assert set(frames_read) == {"features", "labels"}
    asked.overrides = ()
    # Anything that the others did to the market and its frames would show.
    _, again = asked.run()
    assert figures(again) == figures(first)
    assert again.read_predictions().equals(first.read_predictions())


def test_files_that_changed_are_another_market(tmp_path, monkeypatch):
    asked = Asked(tmp_path)
    _, first = asked.run()
    content = Synthetic.content
    monkeypatch.setattr(
        Synthetic, "content", lambda spec, day: [content(spec, day), "the files' new hash"]
    )
    read_day = Synthetic.read_day

    def cut(spec, day, calibration):
        ticks = read_day(spec, day, calibration)
        return replace(ticks, trades=ticks.trades.gather_every(2))

    monkeypatch.setattr(Synthetic, "read_day", cut)
    _, second = asked.run()
    assert second.read_metrics()["select/rows"] < 0.6 * first.read_metrics()["select/rows"]
