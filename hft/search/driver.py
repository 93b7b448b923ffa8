"""The driver of a sweep: it asks and tells, and keeps every slot of the engine at work.

In: a study, an engine, and a function that makes a trial's config of a point. Any number of drivers
may work on one study, at once or one after the other; claims under the study's lock keep them apart
(hft/study/claims.py). The next driver finds the trials of a killed one by their free locks.
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
from typing import Any, Protocol

from hft.search.launcher import Engine, Future, OverLimit, PlaceLost, WorkerDied
from hft.search.worker import Task, run_trial
from hft.spec import SpecError, UserError
from hft.study.claims import Claim, claim, release, settle
from hft.study.outcome import RETURNED, Outcome, Status, read_outcome
from hft.study.study import Study
from hft.system.provenance import code_hash

MIN_FAILURES = 3  # a sweep ends after so many trials that failed for good, while none worked
IDLE_S = 0.5
# A killed driver forgets at most this much of the time that it has spent.
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


class Screen(Protocol):
    """What a user sees of the sweep (hft/search/screen.py)."""

    def finished(self) -> None:
        """A trial has ended."""

    def update(self) -> None:
        """Called in every turn of the loop."""


class Driver:
    """`compose(params)` gives a trial's plain config or raises SpecError."""

    def __init__(
        self,
        study: Study,
        engine: Engine,
        *,
        compose: Callable[[dict[str, Any]], dict[str, Any]],
        points: list[dict[str, Any]],
        total: int,
        screen: Screen,
    ) -> None:
        self.study, self.engine, self.compose, self.screen = study, engine, compose, screen
        self.points, self.total = points, total
        self.id = uuid.uuid4().hex[:12]
        self.flights: dict[int, Flight] = {}
        self.stop_reason = ""  # once there is one, no new trial begins
        self.out_of_time = False
        self.interrupts = 0
        self.stopping = False
        self.signal_number = 0
        self.succeeded = 0
        self.failures: list[tuple[int, str]] = []
        self.started = time.monotonic()
        self.spent_before = study.spent_s()

    def run(self) -> None:
        """Returns when the study is complete, or when it may not go on: `stop_reason` says why."""
        # Held before the first claim: without the lease a trial of this driver would pass for an
        # orphan.
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
            self.screen.update()
            # Another driver may die, and this one takes over what it leaves.
            if not self.flights and (self.stop_reason or (exhausted and not self._others_run())):
                return
            if time.monotonic() - noted > BUDGET_EVERY_S:
                noted = time.monotonic()
                self._note_spent()
            self._wait()

    def _fill(self) -> bool:
        """Takes trials while slots are free; True when no trial can be taken now."""
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
            # The plan has proven each value in some config, not all combinations of values.
            reason = str(error).replace("\n", "; ")
            self._finish(taken, Outcome(status=Status.FAILED, reason=reason))
            return
        task = Task(
            study=self.study.name,
            storage=self.study.address.text,
            folder=str(self.study.folder),
            number=taken.number,
            config=config,
            sweep=self.study.sweep,
            code=self.study.about["code"],
            driver=self.id,
            continue_from=taken.retry_of,
            echo=self.engine.in_process,
        )
        self.flights[taken.number] = Flight(taken, self.engine.submit(run_trial, task.plain()))

    def _land(self) -> None:
        for flight in [f for f in self.flights.values() if f.future.done()]:
            del self.flights[flight.claim.number]
            self._finish(flight.claim, self._outcome_of(flight))

    def _outcome_of(self, flight: Flight) -> Outcome:
        """The outcome of a flight that ended: the engine's; where it has none, what the worker had
        stored before its end; else what the engine says of the end.
        """
        try:
            return read_outcome(flight.future.result())
        except PlaceLost as error:
            lost = Outcome(status=Status.INTERRUPTED, reason=str(error))
        except WorkerDied as error:
            lost = Outcome(status=Status.DIED, reason=f"its worker died: {error}")
        except OverLimit as error:
            lost = Outcome(status=Status.FAILED, reason=str(error))
        except CancelledError:
            lost = Outcome(status=Status.INTERRUPTED, reason="stopped")
        stored = self.study.trials()[flight.claim.number].user_attrs.get("outcome")
        return lost if stored is None else read_outcome(stored)

    def _finish(self, taken: Claim, outcome: Outcome) -> None:
        status, reason = outcome.status, outcome.reason
        if status is Status.INTERRUPTED and self.engine.in_process:
            # The signal was the driver's too.
            self.signal_number = (outcome.exit_status or 128 + signal.SIGINT) - 128
            self.stop_reason = self.stop_reason or reason
        failed = status is Status.FAILED
        if status in RETURNED:
            counted = self._is_death(taken, status)
            again = release(self.study, taken.number, reason, counted=counted)
            if status is not Status.REFUSED:
                failed = not again
            # Whatever this place refuses once (other code, a full disk) it refuses for every trial.
            elif again:  # else somebody else settled it
                self.stop_reason = self.stop_reason or reason
        else:
            settle(self.study, taken.number, outcome)
        # A pruned trial has trained, which shows that the setup works.
        self.succeeded += status in (Status.COMPLETE, Status.PRUNED)
        if failed:
            self._count_failure(taken.number, reason)
        self.screen.finished()

    def _is_death(self, taken: Claim, status: Status) -> bool:
        """Whether an end counts against the trial: not where a signal from outside (preemption, a
        time limit) let it save.
        """
        saved = any(self.study.trial_folder(taken.number).glob("fold-*/seed-*/*"))
        # An interruption that saves nothing would repeat itself for ever, so it counts, unless this
        # driver was what stopped the trial.
        interrupted = status is Status.INTERRUPTED and not saved and not self.stop_reason
        return status is Status.DIED or interrupted

    def _count_failure(self, number: int, reason: str) -> None:
        self.failures.append((number, reason))
        # All slots begin at once, so that as many fail before the first can be a warning.
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
        # A worker that starts after an edit runs the new code, and its trial would not compare.
        elif code_hash() != self.study.about["code"]:
            self.stop_reason = (
                f"hft/ changed since study {self.study.name} began, and its trials must be "
                "comparable; restore it, or begin another study: sweep.study=new"
            )

    def _others_run(self) -> bool:
        return self.study.counts().running > 0

    def _note_spent(self) -> None:
        self.study.note_spent(self.id, time.monotonic() - self.started)

    def _wait(self) -> None:
        if self.flights:
            self.engine.wait([flight.future for flight in self.flights.values()], timeout_s=IDLE_S)
        else:  # trials of other drivers run; the next claim adopts what a dead driver leaves
            time.sleep(IDLE_S)

    def _stop_now(self) -> None:
        """Cancels what runs: each worker saves its state if it can, and its trial waits for the
        next call.

        From now on a Ctrl-C ends the driver at once: a Slurm that gives no answer would keep it
        waiting for ever.
        """
        self.stopping = True
        for flight in self.flights.values():
            flight.future.cancel()
        # The loop must not cancel again in every turn.
        self.interrupts = 1
        if self.flights:
            self.engine.wait([flight.future for flight in self.flights.values()], timeout_s=IDLE_S)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, _: object) -> None:
            if self.stopping and number == signal.SIGINT:
                raise KeyboardInterrupt
            # Whoever sends SIGTERM wants the end now: it is worth two Ctrl-Cs.
            self.interrupts += 2 if number == signal.SIGTERM else 1
            self.signal_number = number
            self.stop_reason = self.stop_reason or f"stopped by {signal.Signals(number).name}"
            if self.interrupts == 1:
                told = (
                    f"\nno new trials; {len(self.flights)} running ones finish "
                    "(Ctrl-C again stops them now; the same command goes on with them)\n"
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
