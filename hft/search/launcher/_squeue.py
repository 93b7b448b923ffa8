"""What Slurm knows of a driver's jobs: one squeue for all of them, and sacct for those that squeue
has forgotten.

squeue names a finished job for a while (MinJobAge, 300 s by default), with or without accounting.
submitit's own watcher asks sacct alone, and without accounting it never learns of a death
(measured). A squeue that fails says nothing; one that answers without naming a job hints at its
loss.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

LOST = "LOST"
COMPLETED = "COMPLETED"
ENDED = frozenset((
    "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT", COMPLETED, LOST,
))  # fmt: skip
LOST_AFTER_S = 30.0  # a controller that has just changed may answer without having read its jobs
ANSWER_S = 60.0
OURS = ("SLURM_CONF", "SLURM_CLUSTERS")  # they choose the Slurm that is asked
# Prefixes of variables of a job, and of what a user prefers to see.
FOREIGN = ("SLURM_", "SRUN_", "SQUEUE_", "SACCT_", "SCANCEL_", "SUBMITIT_")


@dataclass(frozen=True)
class JobState:
    state: str
    node: str = ""
    reason: str = ""


UNKNOWN = JobState("UNKNOWN")


def environment() -> dict[str, str]:
    """This process's environment, without what a job passes on to its children: the driver itself
    may run in one.
    """
    return {k: v for k, v in os.environ.items() if k in OURS or not k.startswith(FOREIGN)}


def ask(*command: str) -> tuple[bool, str]:
    """(True, output) or (False, the complaint). The command runs in a session of its own, which a
    Ctrl-C does not reach.
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
    if done.returncode == 0:
        return True, done.stdout
    return False, " ".join((done.stderr or done.stdout).split())


def read_squeue(text: str) -> dict[str, JobState]:
    """Reads lines `id|state|nodes|reason`."""
    rows = [line.strip().split("|", 3) for line in text.splitlines() if line.count("|") >= 3]
    return {
        job: JobState(state, node, "" if reason == "None" else reason)
        for job, state, node, reason in rows
    }


def read_sacct(text: str) -> dict[str, JobState]:
    """Reads lines `id|state|nodes`, with states such as `CANCELLED by 0`; keeps the jobs that have
    ended.
    """
    rows = [line.strip().split("|", 2) for line in text.splitlines() if line.count("|") >= 2]
    states = {
        job: JobState(state.split()[0].rstrip("+"), node)
        for job, state, node in rows
        if state.split()
    }
    # In the accounts a job may run on that the controller has lost.
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
        """The state at most `poll_s` ago, or 1 s ago when `soon`."""
        age = time.monotonic() - self._asked
        if self._jobs[job].state not in ENDED and age >= (
            min(1.0, self.poll_s) if soon else self.poll_s
        ):
            self._update()
        return self._jobs[job]

    def known(self) -> list[JobState]:
        """The latest states of the jobs that have not ended."""
        return [state for state in self._jobs.values() if state.state not in ENDED]

    def _update(self) -> None:
        # Ask by user: asked for one job that is too old, squeue fails as a whole.
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
            *("sacct", "-X", "--noheader", "--parsable2", "-o", "JobID,State,NodeList"),
            *("-j", ",".join(missing)),
        )
        seen = read_sacct(answer) if known else {}
        for job in missing:
            first = self._missed.setdefault(job, self._asked)
            if job in seen:
                self._jobs[job] = seen[job]
            elif self._asked - first >= LOST_AFTER_S:
                self._jobs[job] = JobState(LOST, reason="neither squeue nor sacct knows it")
