"""The driver of a sweep: it owns ask and tell, and keeps every slot of the engine at work.

In: a study, an engine, and what makes a trial's config of a point. Any number of drivers may work
on one study, at once or one after the other; what each may take is settled under the study's lock
(hft/study/claims.py). A driver that is killed leaves trials that the next one finds by their free
locks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from hft.search.launcher import Engine, Future, OverLimit, PlaceLost, WorkerDied
from hft.search.worker import run_trial
from hft.spec import SpecError, UserError
from hft.study.claims import Claim, claim, release, settle
from hft.study.study import Study
from hft.system.provenance import code_hash

MIN_FAILURES = 3  # finally failed trials without one that worked, after which a sweep ends
IDLE_S = 0.5
BUDGET_EVERY_S = 10.0


class SweepInterrupted(UserError):
    """Ctrl-C or SIGTERM ended the sweep; what ran is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        self.exit_status = 128 + signal_number
        super().__init__(message)


@dataclass
class Flight:
    """A trial at work."""

    claim: Claim
    future: Future


class Driver:
    """`compose(params)` gives a trial's plain config or raises SpecError; `watch` is told of
    everything that ends.
    """

    def __init__(
        self,
        study: Study,
        engine: Engine,
        *,
        compose: Callable[[dict[str, Any]], dict[str, Any]],
        points: list[dict[str, Any]],
        total: int,
        watch: Any,
    ) -> None:
        self.study, self.engine, self.compose, self.watch = study, engine, compose, watch
        self.points, self.total = points, total
        self.id = uuid.uuid4().hex[:12]
        self.flights: dict[int, Flight] = {}
        self.stop_reason = ""  # no new trials, once there is one
        self.out_of_time = False
        self.interrupts = 0
        self.stopping = False
        self.signal_number = 0
        self.succeeded, self.failures = 0, []
        self.started = time.monotonic()
        self.spent_before = study.spent_s()

    def run(self) -> None:
        """Returns when the study is complete, or when it may not go on: `stop_reason` says why."""
        with self.study.locks.hold(f"driver-{self.id}"), self._signals():
            try:
                self._loop()
            finally:
                self._note_spent()
        if self.signal_number:
            raise SweepInterrupted(
                f"{self.stop_reason}; the same command goes on with the study", self.signal_number
            )

    def _loop(self) -> None:
        noted = time.monotonic()
        while True:
            self._land()
            if self.interrupts > 1:
                self._stop_now()
            exhausted = self._fill()
            self.watch.update(self.flights)
            if not self.flights and (self.stop_reason or (exhausted and not self._others_run())):
                return
            if time.monotonic() - noted > BUDGET_EVERY_S:
                noted = time.monotonic()
                self._note_spent()
            self._wait()

    def _fill(self) -> bool:
        """Takes trials while slots are free; True when there is none to take now."""
        while len(self.flights) < self.engine.slots:
            self._check_may_go_on()
            if self.stop_reason:
                return True
            taken = claim(self.study, driver=self.id, points=self.points, total=self.total)
            if taken is None:
                return True
            self._launch(taken)
        return False

    def _launch(self, taken: Claim) -> None:
        try:
            config = self.compose(taken.params)
        except SpecError as error:
            self._finish(taken, {"status": "failed", "reason": str(error).replace("\n", "; ")})
            return
        task = {
            "study": self.study.name,
            "storage": self.study.address.text,
            "folder": str(self.study.folder),
            "number": taken.number,
            "config": config,
            "sweep": self.study.sweep.plain(),
            "code": self.study.about["code"],
            "driver": self.id,
            "continue_from": taken.retry_of,
            "echo": self.engine.in_process,
        }
        self.flights[taken.number] = Flight(taken, self.engine.submit(run_trial, task))

    def _land(self) -> None:
        for flight in [f for f in self.flights.values() if f.future.done()]:
            del self.flights[flight.claim.number]
            try:
                outcome = flight.future.result()
            except PlaceLost as error:
                outcome = self._stored(flight.claim) or {
                    "status": "interrupted",
                    "reason": str(error),
                }
            except WorkerDied as error:
                outcome = self._stored(flight.claim) or {
                    "status": "died",
                    "reason": f"its worker died: {error}",
                }
            except OverLimit as error:
                outcome = self._stored(flight.claim) or {"status": "failed", "reason": str(error)}
            except CancelledError:  # it may have come to its end before it was told
                outcome = self._stored(flight.claim) or {
                    "status": "interrupted",
                    "reason": "stopped",
                }
            self._finish(flight.claim, outcome)

    def _finish(self, taken: Claim, outcome: dict[str, Any]) -> None:
        status, reason = outcome["status"], outcome.get("reason", "")
        if status == "interrupted" and self.engine.in_process:  # the signal was the driver's too
            self.signal_number = outcome["exit_status"] - 128
            self.stop_reason = self.stop_reason or reason
        if status in ("died", "interrupted", "refused"):
            if not release(self.study, taken.number, reason, counted=self._is_death(taken, status)):
                status = "failed" if status in ("died", "interrupted") else "settled elsewhere"
        else:
            settle(self.study, taken.number, outcome)
        if status == "refused":
            self.stop_reason = self.stop_reason or reason
        self._count(taken.number, status, reason)
        self.watch.finished()

    def _is_death(self, taken: Claim, status: str) -> bool:
        """A signal from outside (preemption, a time limit) that let the trial save is no fault of
        the trial.
        """
        saved = any(self.study.trial_folder(taken.number).glob("fold-*/seed-*/*"))
        return status == "died" or (status == "interrupted" and not saved and not self.stop_reason)

    def _stored(self, taken: Claim) -> dict[str, Any] | None:
        """What a worker had stored before it died."""
        return self.study.trials()[taken.number].user_attrs.get("outcome")

    def _count(self, number: int, status: str, reason: str) -> None:
        if status in ("complete", "pruned"):
            self.succeeded += 1
        elif status == "failed":
            self.failures.append((number, reason))
        limit = max(MIN_FAILURES, self.engine.slots)
        if not self.succeeded and len(self.failures) >= limit and not self.stop_reason:
            self.stop_reason = (
                f"all of the first {len(self.failures)} trials failed; {self.common_cause()}"
            )

    def common_cause(self) -> str:
        """The reason that most failures share, and where the log of one of them lies."""
        reasons = [(reason.splitlines() or ["no reason given"])[0] for _, reason in self.failures]
        cause = max(reasons, key=reasons.count)
        number = self.failures[reasons.index(cause)][0]
        log = self.study.trial_folder(number) / "log.txt"
        return f"{reasons.count(cause)} of {len(reasons)} with: {cause} (log: {log})"

    def _check_may_go_on(self) -> None:
        if self.stop_reason:
            return
        budget = self.study.sweep.timeout_s
        if budget and self.spent_before + time.monotonic() - self.started >= budget:
            self.out_of_time = True
            self.stop_reason = f"its time is spent (sweep.timeout={self.study.sweep.timeout})"
        elif code_hash() != self.study.about["code"]:
            self.stop_reason = (
                f"hft/ changed since study {self.study.name} began, and its trials must be comparable; restore it, or "
                "begin another study: sweep.study=new"
            )

    def _others_run(self) -> bool:
        return self.study.counts().running > 0

    def _note_spent(self) -> None:
        self.study.note_spent(self.id, time.monotonic() - self.started)

    def _wait(self) -> None:
        if self.flights:
            self.engine.wait([flight.future for flight in self.flights.values()], timeout_s=IDLE_S)
        else:  # others' trials are running; their orphans are adopted by the next claim
            time.sleep(IDLE_S)

    def _stop_now(self) -> None:
        """Ends what runs: each worker saves its state if it can, and its trial waits for the next
        call.

        From now on a Ctrl-C waits for nobody: a Slurm that does not answer says of no job that it
        ended.
        """
        self.stopping = True
        for flight in self.flights.values():
            flight.future.cancel()
        self.interrupts = 1
        if self.flights:
            self.engine.wait([flight.future for flight in self.flights.values()], timeout_s=IDLE_S)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, _: object) -> None:
            if self.stopping and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.interrupts += 2 if number == signal.SIGTERM else 1
            self.signal_number = number
            self.stop_reason = self.stop_reason or f"stopped by {signal.Signals(number).name}"
            if self.interrupts == 1:
                told = (
                    f"\nno new trials; {len(self.flights)} running ones finish (Ctrl-C again stops them now, to go on "
                    "with later)\n"
                )
                os.write(2, told.encode())  # sys.stderr may be in the middle of a write

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
