"""What every engine must do. The tests of one subclass ProcessConformance and give it a fixture
`engine`.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from hft.search.launcher import Engine, Future, WorkerDied
from tests.search.launcher import toys

PATIENCE_S = 60.0


def wait_for(path: Path, timeout_s: float = PATIENCE_S) -> str:
    """What `path` holds as soon as it is there."""
    until = time.monotonic() + timeout_s
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.02)
    return path.read_text()


def outcome(engine: Engine, future: Future, timeout_s: float = PATIENCE_S) -> dict:
    engine.wait([future], timeout_s)
    assert future.done()
    return future.result()


class Conformance:
    def test_gives_the_outcome(self, engine):
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 2.5}))["values"] == [3.5]

    def test_each_outcome_goes_to_its_own_future(self, engine):
        seen = []
        for first in range(0, 6, engine.slots):
            futures = [
                engine.submit(toys.add, {"a": i, "b": 0})
                for i in range(first, first + engine.slots)
            ]
            seen += [outcome(engine, future)["values"][0] for future in futures]
        assert seen[:6] == list(range(6))

    @pytest.mark.parametrize("how", ["user", "value", "exit"])
    def test_what_a_function_raises_is_an_outcome(self, engine, how):
        found = outcome(engine, engine.submit(toys.fail, {"how": how}))
        assert found["status"] == "failed"
        assert found["reason"].endswith("width: must be > 0, got -1")
        assert found["reason"].startswith(
            {"user": "width", "value": "ValueError: ", "exit": "SystemExit: "}[how]
        )
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]

    def test_an_outcome_that_is_not_json_is_a_failure(self, engine):
        assert (
            "not JSON serializable" in outcome(engine, engine.submit(toys.not_json, {}))["reason"]
        )

    def test_a_task_that_is_not_json_is_refused(self, engine):
        with pytest.raises(TypeError, match="not JSON serializable"):
            engine.submit(toys.add, {"a": object()})

    def test_a_function_without_a_name_is_refused(self, engine):
        with pytest.raises(AssertionError, match="top level"):
            engine.submit(lambda task: task, {})

    def test_wait_returns_when_the_time_is_over(self, engine):
        start = time.monotonic()
        engine.wait([], 0.2)
        assert 0.15 < time.monotonic() - start < 5

    def test_says_what_it_is_in_one_line(self, engine):
        assert engine.describe()
        assert "\n" not in engine.describe()

    def test_close_may_be_called_twice(self, engine):
        engine.close()
        engine.close()


class ProcessConformance(Conformance):
    """Of engines whose tasks run in processes of their own, so that they can be killed and
    cancelled.
    """

    def test_wait_returns_with_the_first_of_several(self, engine):
        if engine.slots < 2:
            pytest.skip("one task at a time")
        slow, fast = engine.submit(toys.nap, {"s": 20}), engine.submit(toys.nap, {"s": 0.1})
        engine.wait([slow, fast], PATIENCE_S)
        assert fast.done()
        assert not slow.done()

    def test_a_dead_worker_fails_its_own_task_only(self, engine):
        neighbour = engine.submit(toys.nap, {"s": 2}) if engine.slots > 1 else None
        with pytest.raises(WorkerDied):
            outcome(engine, engine.submit(toys.die, {"signal": 9}))
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]
        assert neighbour is None or outcome(engine, neighbour)["pid"]

    def test_cancel_lets_the_task_save(self, engine, tmp_path):
        started, saved = tmp_path / "started", tmp_path / "saved"
        future = engine.submit(
            toys.save, {"started": str(started), "saved": str(saved), "takes_s": 0.3}
        )
        wait_for(started)
        future.cancel()
        with pytest.raises(CancelledError):
            outcome(engine, future)
        assert saved.read_text() == "saved"
        future.cancel()
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]

    def test_close_ends_what_runs(self, engine, tmp_path):
        started, saved = tmp_path / "started", tmp_path / "saved"
        future = engine.submit(
            toys.save, {"started": str(started), "saved": str(saved), "takes_s": 0.1}
        )
        wait_for(started)
        engine.close()
        assert future.done()
        assert saved.exists()
        with pytest.raises(CancelledError):
            future.result()
