"""`slurm`: each trial is a Slurm job, at most `max_jobs` at a time; submitit submits it, and squeue
tells its state.

The driver and the nodes see the study's folder, this code and this Python under the same paths. A
trial at its time limit or before a preemption gets SIGTERM (SIGUSR2, which comes `signal_delay_s`
before the limit, becomes one), saves its state and returns an outcome. Slurm itself runs no trial
twice (--no-requeue). Jobs outlive a killed driver and run to their end; the study's leases decide
whether their trials still count.

submitit keeps tasks and outcomes as pickles in `<study>/slurm/<driver>/`. We trust that folder as
we trust code: only our own jobs write there, and only their user can (mode 0700, checked). We give
submitit the name of a function and JSON text without a password, which goes by PGPASSFILE or the
environment.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hft.search.launcher import (
    POLL_S,
    Engine,
    Function,
    LauncherError,
    LauncherSpec,
    Where,
    to_text,
)
from hft.search.launcher._slurm_job import SlurmFuture, work
from hft.search.launcher._squeue import Queue, ask, environment
from hft.search.launcher.local import THREAD_LIMITS
from hft.system.files import writable, write_atomic

ROOT = Path(__file__).parents[3]
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
EARLY_S = 60  # Slurm may send the signal so early; with a short limit it came at the start
CLOSE_S = 120.0  # sites give a job 30 s between SIGTERM and SIGKILL
# A user's options come last and would win over ours: without `no-requeue` or `signal` a trial could
# run twice, or end unsaved.
SET_BY_US = frozenset((
    "account", "array", "constraint", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem",
    "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "qos",
    "requeue", "signal", "time",
))  # fmt: skip


class Slurm(LauncherSpec):
    kind: Literal["slurm"]
    max_jobs: int = Field(ge=1, le=10_000, description="jobs in the queue or running at a time")
    partition: str = Field(description="where the jobs run; empty for the site's default")
    gpus: int = Field(ge=0, le=64, description="per trial")
    cpus: int = Field(ge=1, le=1024, description="cores per trial, and its threads at most")
    memory_gb: float = Field(ge=0, le=1e5, description="per trial; 0 leaves it to the site")
    time_min: int = Field(
        ge=1,
        le=1_000_000,
        description="time limit in minutes; a trial that meets it goes on in another",
    )
    signal_delay_s: int = Field(
        ge=1, le=65_535, description="seconds before the limit at which a trial is told to save"
    )
    qos: str = Field(description="quality of service; empty for the site's default")
    account: str = Field(description="who pays; empty for the site's default")
    constraint: str = Field(description="features that a node must have; empty for none")
    options: dict[str, Literal[True] | int | str] = Field(
        description="further options of sbatch, such as {exclude: n3, gres: 'shard:1'}; true for "
        "one without a value"
    )
    setup: tuple[str, ...] = Field(
        description="lines of shell before a trial, such as module load cuda"
    )
    poll_s: float = Field(ge=0.1, le=600, description="seconds between two calls of squeue")

    @field_validator("options")
    @classmethod
    def _are_free(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            if name in SET_BY_US or not re.fullmatch(r"[a-z][a-z-]+", name):
                raise ValueError(
                    f"{name!r} is no long option of sbatch, or one that the launcher sets by itself"
                )
            # Each option is a line of the batch file, and what follows a line end would be a
            # command.
            if "\n" in str(value):
                raise ValueError(f"{name!r} must be one line, got {value!r}")
        return options

    @model_validator(mode="after")
    def _has_time_to_work(self) -> Slurm:
        if self.time_min * 60 < 2 * (self.signal_delay_s + EARLY_S):
            raise ValueError(
                f"time_min must be at least {2 * (self.signal_delay_s + EARLY_S) / 60:g} with "
                f"signal_delay_s={self.signal_delay_s}, got {self.time_min}: Slurm may send the "
                f"signal {EARLY_S} s early, and a trial would spend its time on saving itself"
            )
        return self

    def open(self, where: Where) -> SlurmEngine:
        if missing := [c for c in COMMANDS if shutil.which(c) is None]:
            raise LauncherError(
                f"launcher=slurm: {missing[0]} is not on the PATH; start the sweep where Slurm's "
                "commands are (a login node), or use launcher=local"
            )
        if where.device == "cuda" and not self.has_card():
            raise LauncherError(
                f"launcher.gpus={self.gpus}: trials with trainer=gpu need a card each: "
                "launcher.gpus=1"
            )
        if where.threads > self.cpus:
            raise LauncherError(
                f"launcher.cpus: {self.cpus} are too few for trainer.threads={where.threads}; "
                "set as many"
            )
        # submitit names its files by the job's number alone, and Slurm may restart its count.
        folder = (
            _private(where.folder / "slurm")
            / f"{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        )
        engine = SlurmEngine(self, folder)
        engine.check()
        return engine

    def parameters(self) -> dict[str, Any]:
        """The fields under the names that submitit's SlurmExecutor has for them."""
        words = {
            name: getattr(self, name) for name in ("partition", "qos", "account", "constraint")
        }
        # Recent Slurms give a step the cores of its job only when it asks for them again.
        return {name: word for name, word in words.items() if word} | {
            "time": self.time_min,
            "cpus_per_task": self.cpus,
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            "gpus_per_node": self.gpus or None,
            "mem": f"{round(self.memory_gb * 1024)}M" if self.memory_gb else None,
            # submitit would name one of its own, which a site may not have.
            "wckey": None,
            "setup": [*self.setup, *self._environment_lines()],
            "additional_parameters": {
                "no-requeue": True,
                "signal": f"USR2@{self.signal_delay_s}",
                **self.options,
            },
        }

    def _environment_lines(self) -> list[str]:
        return [
            "unset WANDB_SERVICE",  # the driver's, which no other machine reaches
            # A checkout need not be installed to be swept.
            f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export " + " ".join(f"{name}={self.cpus}" for name in THREAD_LIMITS),
        ]

    def has_card(self) -> bool:
        # A part of a card comes as a `gres`, such as shard:1.
        return self.gpus > 0 or "gres" in self.options

    def python(self) -> str:
        """The command of a trial's Python, for a shell. Without a card of its own a trial would see
        every card of an open node.
        """
        return "env CUDA_VISIBLE_DEVICES= " * (not self.has_card()) + shlex.quote(sys.executable)


class SlurmEngine(Engine):
    def __init__(self, spec: Slurm, folder: Path) -> None:
        from hft.search.submitit_internals import make_executor

        self.slots = spec.max_jobs
        self.spec = spec
        self.queue = Queue(spec.poll_s)
        self._executor = make_executor(folder, python=spec.python(), parameters=spec.parameters())
        self._open: list[SlurmFuture] = []

    def check(self) -> None:
        """LauncherError when sbatch would refuse every job."""
        from hft.search.submitit_internals import submission_text

        folder = self._executor.folder
        with writable(folder):
            folder.mkdir(parents=True)
            script = submission_text(self._executor, "true").encode()
            write_atomic(folder / "check.sh", script, durable=False)
        # A wrong partition is found here. Later it would look like a full queue, and be asked for
        # again for an hour (REFUSED_S).
        accepted, answer = ask("sbatch", "--test-only", str(folder / "check.sh"))
        if not accepted:
            raise LauncherError(
                f"launcher=slurm: sbatch refuses such jobs ({answer}); sinfo and scontrol show "
                "partition list what there is, launcher.<field> asks for it"
            )

    def submit(self, function: Function, task: dict[str, Any]) -> SlurmFuture:
        name = (
            "-".join(str(task[key]) for key in ("study", "number") if key in task)
            or function.__name__
        )
        call = to_text(function, task)
        future = SlurmFuture(name, lambda: self._sbatch(name, call), self.queue)
        self._open = [*(f for f in self._open if not f.ended), future]
        return future

    def _sbatch(self, name: str, call: tuple[str, str]) -> Any:
        self._executor.parameters["job_name"] = name
        # submitit prints the errors that it raises.
        with _like_a_login_shell(), contextlib.redirect_stderr(io.StringIO()):
            job = self._executor.submit(work, *call)
        self.queue.add(job.job_id)
        return job

    def describe(self) -> str:
        sizes = [
            f"{self.spec.cpus} core" + "s" * (self.spec.cpus > 1),
            f"{self.spec.gpus} GPU" * bool(self.spec.gpus) + "s" * (self.spec.gpus > 1),
            f"{self.spec.time_min} min",
        ]
        where = f" in {self.spec.partition}" * bool(self.spec.partition)
        parts = [
            f"slurm: at most {self.slots} jobs{where} of {', '.join(filter(None, sizes))}",
            *self._news(),
        ]
        return "; ".join(filter(None, parts))

    def _news(self) -> Iterator[str]:
        """What the jobs do, what they wait for, and why Slurm refuses some."""
        for state, n in Counter((s.state, s.reason) for s in self.queue.known()).items():
            yield f"{n} {state[0].lower()}" + f" ({state[1]})" * bool(state[1])
        complaints = [f.complaint for f in self._open if f.complaint and not f.ended]
        if complaints:
            yield f"{len(complaints)} refused ({complaints[0]})"
        yield self.queue.complaint

    def close(self) -> None:
        for future in self._open:
            future.cancel()
        until = time.monotonic() + CLOSE_S
        while (left := [f for f in self._open if not f.done()]) and time.monotonic() < until:
            time.sleep(POLL_S)
        self._open = []
        if left:
            jobs = " ".join(f.job.job_id for f in left)
            raise LauncherError(
                f"launcher=slurm: jobs are left that do not end; end them: scancel {jobs}"
            )


def _private(folder: Path) -> Path:
    """`folder`, which only its owner may read and write: what is read from it runs as code."""
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise LauncherError(
                f"{folder}: must be a folder of yours, since what lies there runs as code; "
                "remove it"
            )
        # The mode of `mkdir` is cut by the umask, and does nothing to a folder that was there
        # before.
        folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def _like_a_login_shell() -> Iterator[None]:
    """The environment of sbatch, which submitit starts: as outside of the job that the driver
    itself may run in, and with Ctrl-C blocked.
    """
    foreign = {name: os.environ.pop(name) for name in os.environ.keys() - environment().keys()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.update(foreign)
