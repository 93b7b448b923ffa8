"""What Slurm knows of a driver's jobs: one squeue for all of them, and sacct for those that squeue
has forgotten.

squeue names a finished job for a while (MinJobAge, 300 s by default), also where no accounting
runs; submitit's own watcher asks sacct alone, and without accounting never learns of a death
(measured). A squeue that fails tells nothing: only one that answers and does not name a job speaks
for its loss.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

LOST = "LOST"
COMPLETED = "COMPLETED"
ENDED = frozenset((
    "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
    COMPLETED, LOST,
))  # fmt: skip
LOST_AFTER_S = 30.0  # without a word from squeue or sacct: a controller that has just changed may answer too early
ANSWER_S = 60.0
OURS = ("SLURM_CONF", "SLURM_CLUSTERS")  # what says which Slurm is asked
FOREIGN = (
    "SLURM_",
    "SRUN_",
    "SQUEUE_",
    "SACCT_",
    "SCANCEL_",
    "SUBMITIT_",
)  # of the job or the taste of who asks


@dataclass(frozen=True)
class JobState:
    state: str
    node: str = ""
    reason: str = ""


UNKNOWN = JobState("UNKNOWN")


def environment() -> dict[str, str]:
    """Ours without what a job that the driver itself may run in would pass on to its children."""
    return {k: v for k, v in os.environ.items() if k in OURS or not k.startswith(FOREIGN)}


def ask(*command: str) -> tuple[bool, str]:
    """(True, output) or (False, the complaint); in a session of its own, where a Ctrl-C does not
    reach it.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            env=environment(),
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{command[0]}: {error}"
    return (
        (True, done.stdout)
        if done.returncode == 0
        else (False, " ".join((done.stderr or done.stdout).split()))
    )


def read_squeue(text: str) -> dict[str, JobState]:
    """Of lines `id|state|nodes|reason`."""
    rows = [line.strip().split("|", 3) for line in text.splitlines() if line.count("|") >= 3]
    return {
        job: JobState(state, node, "" if reason == "None" else reason)
        for job, state, node, reason in rows
    }


def read_sacct(text: str) -> dict[str, JobState]:
    """Of lines `id|state|nodes`, where a state may go on: `CANCELLED by 0`; only of jobs that have
    ended.
    """
    rows = [line.strip().split("|", 2) for line in text.splitlines() if line.count("|") >= 2]
    states = {
        job: JobState(state.split()[0].rstrip("+"), node)
        for job, state, node in rows
        if state.split()
    }
    # The accounts may keep a job running that the controller lost.
    return {job: state for job, state in states.items() if state.state in ENDED}


class Queue:
    def __init__(self, poll_s: float) -> None:
        self.poll_s = poll_s
        self.complaint = ""  # squeue's, when it has just failed
        self._jobs: dict[str, JobState] = {}
        self._missed: dict[str, float] = {}
        self._asked = float("-inf")

    def add(self, job: str) -> None:
        self._jobs[job] = UNKNOWN

    def state(self, job: str, *, soon: bool = False) -> JobState:
        """As of `poll_s` ago at most, or of 1 s ago when `soon`."""
        age = time.monotonic() - self._asked
        if self._jobs[job].state not in ENDED and age >= (
            min(1.0, self.poll_s) if soon else self.poll_s
        ):
            self._update()
        return self._jobs[job]

    def known(self) -> list[JobState]:
        """The last word on the jobs that have not ended."""
        return [state for state in self._jobs.values() if state.state not in ENDED]

    def _update(self) -> None:
        # By user, not by job: squeue fails as a whole when the one job it is asked for is too old.
        known, answer = ask(
            "squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "-o", "%i|%T|%N|%r"
        )
        self._asked = time.monotonic()
        self.complaint = "" if known else answer
        if not known:
            return
        seen = read_squeue(answer)
        alive = [job for job, state in self._jobs.items() if state.state not in ENDED]
        for job in alive:
            if job in seen:
                self._jobs[job] = seen[job]
                self._missed.pop(job, None)
        if missing := [job for job in alive if job not in seen]:
            self._look_for(missing)

    def _look_for(self, missing: list[str]) -> None:
        known, answer = ask(
            "sacct",
            "-X",
            "--noheader",
            "--parsable2",
            "-o",
            "JobID,State,NodeList",
            "-j",
            ",".join(missing),
        )
        seen = read_sacct(answer) if known else {}
        for job in missing:
            first = self._missed.setdefault(job, self._asked)
            if job in seen:
                self._jobs[job] = seen[job]
            elif self._asked - first >= LOST_AFTER_S:
                self._jobs[job] = JobState(LOST, reason="neither squeue nor sacct knows it")
