"""Claims: exact totals whatever is killed when, retries once and in order, the same search from the
same seed.
"""

from __future__ import annotations

import json
import signal

import pytest
from optuna.trial import TrialState

from hft.study.claims import claim, reap, release, settle
from hft.study.optuna_internals import set_attribute, trial_id
from hft.study.outcome import Outcome, Status
from hft.study.study import open_study
from hft.study.sweep import trial_seed
from tests.study.claimers import GRID, SPACE, check_complete, drive, end, make_study, start

COMPLETE = Outcome(status=Status.COMPLETE, values=(0.5,))


def with_values(*values):
    return COMPLETE.model_copy(update={"values": values})


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "s", n_trials=4)


def take(study, driver="a", points=(), total=4, *, begun=True):
    """A claim that a worker, when `begun`, is already at."""
    taken = claim(study, driver=driver, points=list(points), total=total)
    if taken is not None and begun:
        set_attribute(study.address.open(), study.trials()[taken.number], "host", "here")
    return taken


def states(study):
    return [t.state.name for t in study.trials()]


def test_what_no_worker_began_is_no_death(study):
    with study.locks.hold("driver-a"):
        take(study, begun=False)
        take(study)
    assert reap(study) == [0, 1]
    retries = [t.user_attrs for t in study.trials()[2:]]
    assert [(r["retry_of"], r["attempt"]) for r in retries] == [(0, 0), (1, 1)]


def test_a_worker_that_lost_its_storage_is_tried_again(study):
    with study.locks.hold("driver-a"):
        take(study)
        assert settle(study, 0, Outcome(status=Status.DIED, reason="storage: no answer"))
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials()[1].user_attrs["attempt"] == 1


# One after the other


def test_a_study_gets_exactly_its_total(study):
    with study.locks.hold("driver-a"):
        taken = [take(study) for _ in range(4)]
        assert [c.number for c in taken] == [0, 1, 2, 3]
        assert take(study) is None
        for one in taken:
            assert settle(study, one.number, COMPLETE)
        assert take(study) is None
        assert take(study, total=5).number == 4
    assert study.trials()[0].params == taken[0].params
    assert SPACE.fits(taken[0].params) == []


def test_every_end_counts_and_is_told_once(study):
    with study.locks.hold("driver-a"):
        for _ in range(4):
            take(study)
        study.address.open().set_trial_intermediate_value(trial_id(study.trials()[1]), 3, 0.25)
        assert settle(study, 0, COMPLETE)
        assert settle(study, 1, Outcome(status=Status.PRUNED))
        assert settle(study, 2, Outcome(status=Status.FAILED, reason="loss is nan"))
        assert settle(study, 3, with_values(float("nan")))
        assert not settle(study, 0, with_values(9.0))
        assert not release(study, 2, "late", counted=True)
        assert take(study) is None
    assert states(study) == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert [t.values for t in study.trials()] == [[0.5], [0.25], None, None]
    reasons = [t.user_attrs.get("reason") for t in study.trials()]
    assert reasons == [None, None, "loss is nan", "an objective is no number: nan"]
    counts = study.counts()
    assert (counts.complete, counts.pruned, counts.failed, counts.retried, counts.points) == (
        1,
        1,
        2,
        0,
        4,
    )


def test_a_retry_comes_before_anything_new_and_is_made_once(study, monkeypatch):
    with study.locks.hold("driver-a"):
        first = take(study)
        assert release(study, 0, "its worker died", counted=True)
        assert not release(study, 0, "its worker died", counted=True)
        again = take(study)
        assert (again.number, again.retry_of, again.attempt, again.params) == (
            1,
            0,
            1,
            first.params,
        )
        assert release(study, 1, "its worker died", counted=True)
        last = take(study)
        assert (last.retry_of, last.attempt, last.params) == (1, 2, first.params)
        assert study.trials()[2].user_attrs["origin"] == 0
        assert [t.user_attrs.get("retry_of") for t in study.trials()] == [None, 0, 1]
        assert not release(study, 2, "its worker died again", counted=True)  # max_retry is 2
        assert [take(study).number for _ in range(3)] == [3, 4, 5]
        assert take(study) is None
    assert study.trials()[2].user_attrs["reason"] == "its worker died again"
    counts = study.counts()
    assert (counts.failed, counts.retried, counts.running, counts.points) == (1, 2, 3, 4)


def test_an_interruption_does_not_count(study):
    with study.locks.hold("driver-a"):
        number = take(study).number
        for _ in range(5):
            assert release(study, number, "stopped", counted=False)
            taken = take(study)
            assert (taken.retry_of, taken.attempt) == (number, 0)
            number = taken.number
        assert settle(study, number, Outcome(status=Status.INTERRUPTED, reason="SIGTERM"))
        assert take(study).retry_of == number
    assert study.counts().retried == 6


def test_the_retry_stands_before_the_failure(study, monkeypatch):
    seen = []
    with study.locks.hold("driver-a"):
        take(study)
        monkeypatch.setattr("hft.study.claims._fail", lambda *_: seen.extend(states(study)))
        release(study, 0, "its worker died", counted=True)
    assert seen == ["RUNNING", "WAITING"]


def test_what_the_worker_finished_is_not_repeated(study):
    with study.locks.hold("driver-a"):
        for _ in range(3):
            take(study)
        storage, trials = study.address.open(), study.trials()
        kept = COMPLETE.plain() | {"constraints": {"trades": -2.0}}
        set_attribute(storage, trials[0], "outcome", kept)
        set_attribute(storage, trials[1], "outcome", {"status": "failed", "reason": "no data"})
        assert reap(study) == []
    assert reap(study) == [0, 1, 2]
    assert states(study) == ["COMPLETE", "FAIL", "FAIL", "WAITING"]
    assert study.trials()[0].constraints == {"trades": -2.0}
    assert [t.user_attrs.get("reason") for t in study.trials()[1:3]] == [
        "no data",
        "its driver and its worker died",
    ]
    assert study.counts().failed == 1


@pytest.mark.parametrize("alive", ["driver-a", "trial-0"])
def test_nobody_who_lives_is_an_orphan(study, alive):
    with study.locks.hold("driver-a"):
        take(study)
    with study.locks.hold(alive):
        assert reap(study) == []
    assert reap(study) == [0]


def test_a_point_that_the_space_does_not_have_ends_once(study):
    with study.locks.hold("driver-a"):
        study.optuna.enqueue_trial({"optim.lr": "fast"})
        with pytest.raises(ValueError):
            take(study)
        assert take(study).number == 1
    assert "no point of the space" in study.trials()[0].user_attrs["reason"]


def test_points_are_handed_out_in_order_then_the_search_begins(study):
    points = [{"optim.lr": 0.01, "model.channels": 8}, {"optim.lr": 0.02}]
    with study.locks.hold("driver-a"):
        taken = [take(study, points=points).params for _ in range(4)]
    assert taken[0] == points[0]
    assert taken[1]["optim.lr"] == 0.02
    assert SPACE.fits(taken[3]) == []


# Seeds


def test_no_number_shares_a_seed():
    seeds = [trial_seed(3, n) for n in range(100_000)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert trial_seed(3, 0) != trial_seed(4, 0)


def searched(study, drivers):
    found = []
    for i in range(12):
        driver = drivers[i % len(drivers)]
        with study.locks.hold(f"driver-{driver}"):
            taken = take(study, driver=driver, total=12)
            settle(study, taken.number, with_values(taken.params["optim.lr"]))
        found.append(tuple(taken.params.values()))
    return found


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_one_seed_repeats_the_search_whoever_drives(tmp_path, kind):
    first = searched(make_study(tmp_path / "a", kind=kind, n_trials=12), ["a"])
    assert searched(make_study(tmp_path / "b", kind=kind, n_trials=12), ["b", "c"]) == first
    assert (
        searched(make_study(tmp_path / "c", kind=kind, n_trials=12, seed=2), ["a"])[0] != first[0]
    )
    assert len({lr for lr, _ in first}) == 12


# Killed


@pytest.mark.parametrize(
    "die",
    [["enqueued", 3], ["before driver", 3], ["taken", 3], ["outcome", 3], ["journal", 12]],
    ids=lambda d: d[0],
)
def test_a_grid_is_whole_wherever_a_driver_dies(tmp_path, die):
    study = make_study(tmp_path / "s", space=GRID, n_trials=12, max_retry=1)
    end(start(study, driver="a", points=GRID.grid(), die=die), killed=True)
    assert (
        sum(study.trials()[i].state is not TrialState.COMPLETE for i in range(len(study.trials())))
        <= 1
    )
    drive(study, driver="b", total=12, points=GRID.grid())
    check_complete(study, 12)
    done = [t.params for t in study.trials() if t.state is TrialState.COMPLETE]
    assert sorted(map(json.dumps, done)) == sorted(map(json.dumps, GRID.grid()))


def test_a_kill_between_a_retry_and_its_failure_makes_no_second_one(tmp_path):
    study = make_study(tmp_path / "s", n_trials=3)
    end(start(study, driver="a", die=["taken", 1]), killed=True)
    end(start(study, driver="b", die=["before fail", 1]), killed=True)
    assert states(study) == ["RUNNING", "WAITING"]
    drive(study, driver="c", total=3)
    check_complete(study, 3)
    assert study.counts().retried == 1


@pytest.mark.slow
def test_two_drivers_one_killed_a_third_joining(tmp_path):
    study = make_study(tmp_path / "s", n_trials=60)
    killed = start(study, driver="a", die=["taken", 8], pause=0.01)
    others = [start(study, driver="b", pause=0.1)]  # not done before the third has started
    n_taken = len(end(killed, killed=True))
    others.append(start(study, driver="c", pause=0.01))
    taken = [end(process) for process in others]
    check_complete(study, 60)
    assert all(taken)
    assert n_taken + sum(map(len, taken)) == len(study.trials()) == 61
    assert len({t.params["optim.lr"] for t in study.trials()}) == 60


@pytest.mark.slow
def test_a_kill_from_outside_at_any_time(tmp_path):
    study = make_study(tmp_path / "s", n_trials=30, max_retry=9)
    for driver in ("a", "b", "c"):
        process = start(study, driver=driver, pause=0.005)
        for _ in range(4):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    drive(study, driver="d", total=30)
    check_complete(study, 30)


# A torn journal


@pytest.mark.parametrize(
    "tear",
    ["cut", *(pytest.param(tear, marks=pytest.mark.slow) for tear in ("garbage", "zeros"))],
)
def test_a_torn_line_costs_that_line(tmp_path, tear):
    study = make_study(tmp_path / "s", n_trials=10)
    end(start(study, driver="a", total=6))
    journal = study.folder / "journal.log"
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    torn = {
        "cut": whole[: -len(last) // 2],
        "garbage": whole + b'{"op\xff\x00',
        "zeros": whole + bytes(5000),
    }
    journal.write_bytes(torn[tear])
    assert len(end(start(study, driver="b"))) == 4
    fresh = open_study(study.folder)
    check_complete(fresh, 10)
    lines = journal.read_bytes().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
