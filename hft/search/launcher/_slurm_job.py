"""A trial as a Slurm job: the driver's future, and the function that runs in the job."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from hft.search.launcher import (
    POLL_S,
    MemoryExceeded,
    OverLimit,
    PlaceLost,
    TrialTimeout,
    WorkerDied,
    perform,
)
from hft.search.launcher._squeue import COMPLETED, ENDED, Queue, ask

LATE_S = 3.0  # a result may show up on a shared folder after its job has gone ...
LATE_COMPLETED_S = 15.0  # ... and certainly does when the job says that all went well
# A controller restarts, and a full queue empties: sbatch is asked again, for an hour.
RETRY_S, REFUSED_S = 30.0, 3600.0
TAKEN_AWAY = frozenset(("PREEMPTED", "BOOT_FAIL", "REVOKED"))
# At many sites sbatch takes such jobs without a warning, and they wait for ever.
HOPELESS = frozenset((
    "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
    "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit",
))  # fmt: skip


class SlurmFuture:
    """`sbatch` submits and gives submitit's job; it raises RuntimeError or OSError where Slurm
    takes no job now.
    """

    def __init__(self, name: str, sbatch: Callable[[], Any], queue: Queue) -> None:
        self.job: Any = None
        self.ended = False
        self.complaint = ""  # sbatch's, while it takes no job
        self._name, self._sbatch, self._queue = name, sbatch, queue
        self._cancelled = self._told = False
        self._hopeless = ""
        self._made, self._tried, self._gone = time.monotonic(), float("-inf"), 0.0
        self._submit()

    def done(self) -> bool:
        if not self.ended:
            self.ended = self._look()
        return self.ended

    def result(self) -> dict[str, Any]:
        while not self.done():
            time.sleep(POLL_S)
        if self._cancelled:
            raise CancelledError(self._name)
        if self.job is None:
            raise WorkerDied(f"sbatch took no job for {REFUSED_S / 60:g} minutes: {self.complaint}")
        if self.job.paths.result_pickle.exists():
            return self._outcome()
        raise self._death()

    def cancel(self) -> None:
        self._cancelled = self._cancelled or not self.done()
        self.done()

    def _look(self) -> bool:
        if self.job is None and not self._cancelled:
            self._submit()
        if self.job is None:
            return self._cancelled or time.monotonic() - self._made > REFUSED_S
        if (self._cancelled or self._hopeless) and not self._told:
            # Asked again in every look until it succeeds: the controller may be restarting.
            self._told, _ = ask("scancel", self.job.job_id)
        # The outcome's file is asked before Slurm, whose answer is up to `poll_s` old.
        if self.job.paths.result_pickle.exists():
            return True
        job = self._queue.state(self.job.job_id, soon=self._told)
        if job.state == "PENDING" and job.reason in HOPELESS:
            self._hopeless = job.reason
        if job.state not in ENDED:
            return False
        self._gone = self._gone or time.monotonic()
        late = LATE_COMPLETED_S if job.state == COMPLETED else LATE_S
        return self._cancelled or bool(self._hopeless) or time.monotonic() - self._gone >= late

    def _submit(self) -> None:
        if time.monotonic() - self._tried < RETRY_S:
            return
        try:
            self.job, self.complaint = self._sbatch(), ""
        except (RuntimeError, OSError) as error:
            self.complaint = " ".join(str(error).split())
        self._tried = time.monotonic()

    def _outcome(self) -> dict[str, Any]:
        from submitit.core.utils import UncompletedJobError

        try:
            return json.loads(self.job.result())
        except UncompletedJobError as error:  # raised outside of `perform`: a module not found
            raise WorkerDied(f"Slurm job {self.job.job_id}: {error}") from None

    def _death(self) -> Exception:
        if self._hopeless:
            return OverLimit(
                f"Slurm would never start the job ({self._hopeless}); "
                "lower launcher.time_min or another field of the launcher"
            )
        job = self._queue.state(self.job.job_id)
        log = self.job.paths.stderr
        text = f"Slurm job {self.job.job_id}{f' on {job.node}' if job.node else ''}: {job.state}"
        text += f" ({job.reason})" if job.reason else ""
        text += f", log {log}" if log.exists() else f", no log: can its node write {log.parent}?"
        if job.state in ("TIMEOUT", "DEADLINE"):
            return TrialTimeout(f"{text}, and it did not save itself in time")
        if job.state == "OUT_OF_MEMORY":
            return MemoryExceeded(text)
        return PlaceLost(text) if job.state in TAKEN_AWAY else WorkerDied(text)


def work(function: str, task: str) -> str:
    """Runs in the job. Replaces submitit's handlers, which requeue on SIGUSR2 and ignore
    SIGTERM.
    """
    signal.signal(signal.SIGUSR2, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until a training has its own
    try:
        return perform(function, task)
    finally:
        # Signals come in pairs, and submitit has yet to write the outcome.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
