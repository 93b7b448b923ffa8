"""A real Slurm of two nodes on this machine, for as long as a test module needs it; its own ports,
keys and state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.smoke import ROOT

START = ROOT.parent / "shared" / "cluster" / "start_slurm.sh"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
# Of which a test of a dead node would else wait for 50 s; Slurm's own numbers otherwise.
QUICK = {"SlurmdTimeout": 6}


@dataclass(frozen=True)
class Cluster:
    folder: Path

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self) -> str:
        """Those that have not ended, COMPLETING ones too."""
        return self.run("squeue", "--noheader", "-o", "%i|%T|%N|%j")

    def wait_until_idle(self) -> None:
        """A job is on its way out for a moment after its result is there."""
        until = time.monotonic() + 20
        while self.jobs():
            assert time.monotonic() < until, f"jobs are left: {self.jobs()}"
            time.sleep(0.1)

    def job_processes(self, job: str) -> list[psutil.Process]:
        """The Python of a job, which srun started; not its shell, nor Slurm's own."""
        found = [p for p in _processes(self.folder) if _environment(p).get("SLURM_JOB_ID") == job]
        return [
            p
            for p in found
            if "submitit.core._submit" in p.cmdline() and p.name().startswith("python")
        ]

    def kill_node(self, name: str) -> None:
        """slurmd, its step daemons and all of its jobs at once, as when a machine loses its
        power.
        """
        daemon = psutil.Process(int((self.folder / f"slurmd.{name}.pid").read_text()))
        jobs = [
            p for p in _processes(self.folder) if _environment(p).get("SLURMD_NODENAME") == name
        ]
        _kill([daemon, *_steps_of(jobs), *jobs])

    def start_node(self, name: str) -> None:
        self.run("slurmd", "-N", name)


@contextlib.contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Skips where Slurm or the script that starts it is missing; there CI fails."""
    missing = [name for name in DAEMONS if shutil.which(name) is None] + [str(START)] * (
        not START.is_file()
    )
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"no Slurm to test with: {', '.join(missing)} missing"
        )
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: munge's socket lies in it
    controller, nodes = _free_ports(1), _free_ports(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        ports = {"SLURMCTLD_PORT": str(controller), "SLURMD_PORT": str(nodes)}
        try:
            done = subprocess.run(
                [START, folder, "2"],
                env=os.environ | ports,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            _quicken(folder / "slurm.conf")
            yield Cluster(folder)
        finally:
            _stop(folder)


def _quicken(path: Path) -> None:
    text = path.read_text()
    for name, value in QUICK.items():
        text = "\n".join(
            f"{name}={value}" if line.startswith(f"{name}=") else line for line in text.splitlines()
        )
    path.write_text(text + "\n")
    subprocess.run(["scontrol", "reconfigure"], check=True, timeout=60)


def _stop(folder: Path) -> None:
    """Everything that was started with this cluster's configuration, its jobs too, but not this
    process.
    """
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(["scancel", f"--user={os.getuid()}"], capture_output=True, timeout=20)
    until = time.monotonic() + 20
    while (left := _processes(folder)) and time.monotonic() < until:
        _kill(left)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"still running: {left}"


def _processes(folder: Path) -> list[psutil.Process]:
    conf = str(folder / "slurm.conf")
    return [
        p
        for p in psutil.process_iter()
        if p.pid != os.getpid() and _environment(p).get("SLURM_CONF") == conf
    ]


def _steps_of(jobs: list[psutil.Process]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            found |= {parent for parent in job.parents() if parent.name() == "slurmstepd"}
    return found


def _environment(process: psutil.Process) -> dict[str, str]:
    """From /proc: psutil stops at the gap that slurmstepd leaves, which writes its title over the
    first of it.
    """
    try:
        entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries)
    return {name: value for name, separator, value in pairs if separator}


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=5)


def _free_ports(n: int) -> int:
    """The first of `n` in a row, below those that the system gives away by itself."""
    start = 20_000 + os.getpid() * 16 % 10_000
    for first in range(start, 32_000 - n, n):
        if all(_is_free(port) for port in range(first, first + n)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
