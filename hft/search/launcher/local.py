"""Warm worker processes on this machine, one trial each at a time, on its cores or its GPUs.

A worker imports once and serves many trials; one that dies takes its own trial along and no other.
All end with this process, whatever ends it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from concurrent.futures import wait as wait_first
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hft.search.launcher import (
    Engine,
    Function,
    Future,
    LauncherError,
    LauncherSpec,
    Where,
    to_text,
)
from hft.system.processes import GroupGuard

if TYPE_CHECKING:
    from hft.search.launcher._slot import Limits, SlotFuture

GRACE_S = 10.0  # a step and the writing of its state take under a second, a compilation more
LOOK_S = 0.25
SURE_S = 5.0
WEIGH_EVERY = 4  # looks; one at the memory walks all processes of the machine
# Threads of several trials displace each other: on a busy machine a training step on two threads
# took up to 84 times as long as on one (experiments/LOG.md).
THREAD_LIMITS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip


class Local(LauncherSpec):
    kind: Literal["local"]
    workers: int = Field(
        ge=0, description="trials at a time; 0: as many as the cores or GPUs carry"
    )
    per_gpu: int = Field(
        ge=1, description="trials that share a GPU, each with its part of the memory"
    )
    timeout_min: float = Field(
        ge=0, description="minutes after which a trial must save and end; 0: never"
    )
    memory_gb: float = Field(
        ge=0, description="GiB that a trial may hold with all its processes; 0: any"
    )

    def open(
        self, where: Where, *, cards: Sequence[str] | None = None, grace_s: float = GRACE_S
    ) -> LocalEngine:
        """`cards` are the GPUs by their names in CUDA_VISIBLE_DEVICES; None: those of this
        machine.
        """
        # Pebble is imported when an engine opens, because parsing a launcher's fields reads this
        # file too.
        from hft.search.launcher._slot import Limits

        limits = Limits(timeout_s=self.timeout_min * 60, memory_gb=self.memory_gb, grace_s=grace_s)
        if where.device == "cpu":
            if self.per_gpu > 1:
                raise LauncherError(
                    f"launcher.per_gpu: trainer=cpu has no GPU to share, got {self.per_gpu}; "
                    "leave it at 1"
                )
            shown = [""] * (self.workers or max(1, n_cores() // max(1, where.threads)))
        else:
            shown = self._shares(find_cards() if cards is None else cards)
        return LocalEngine(shown, where, limits, share=1 / self.per_gpu)

    def _shares(self, cards: Sequence[str]) -> list[str]:
        """The card of each slot, all cards once before any is shared."""
        if not cards:
            raise LauncherError(
                "launcher=local: trainer=gpu, but no GPU is found (CUDA_VISIBLE_DEVICES is "
                f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}; nvidia-smi -L lists what "
                "there is); set trainer=cpu, or a launcher that has GPUs"
            )
        shares = list(cards) * self.per_gpu
        if self.workers > len(shares):
            raise LauncherError(
                f"launcher.workers: {self.workers} trials need as many shares of a GPU, got "
                f"{len(cards)} GPU(s) with launcher.per_gpu={self.per_gpu}; lower it, or set "
                f"launcher.per_gpu={-(-self.workers // len(cards))}"
            )
        return shares[: self.workers or None]


class LocalEngine(Engine):
    """One slot per entry of `shown`: what CUDA_VISIBLE_DEVICES is in its worker."""

    def __init__(self, shown: list[str], where: Where, limits: Limits, *, share: float) -> None:
        from hft.search.launcher._slot import Slot

        self.slots = len(shown)
        self._where, self._limits, self._cards = where, limits, list(dict.fromkeys(shown))
        self._threads = where.threads or max(1, n_cores() // self.slots)
        self._guard = GroupGuard()
        self._spawner = ThreadPoolExecutor(1, "spawner", initializer=_shield_children)
        self._slots = [
            Slot(
                self._environment(card),
                (where.warm, share),
                limits,
                spawner=self._spawner,
                guard=self._guard,
            )
            for card in shown
        ]
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def submit(self, function: Function, task: dict[str, Any]) -> SlotFuture:
        assert not self._closed.is_set(), "the engine is closed"
        free = [slot for slot in self._slots if slot.free]
        assert free, "no free slot: wait until a future is done"
        return free[0].submit(*to_text(function, task))

    def wait(self, futures: Sequence[Future], timeout_s: float) -> None:
        from hft.search.launcher._slot import SlotFuture

        if futures:
            inner = [future.inner for future in futures if isinstance(future, SlotFuture)]
            wait_first(inner, timeout_s, FIRST_COMPLETED)
        else:
            time.sleep(timeout_s)

    def describe(self) -> str:
        what = f"{self.slots} worker{'s' * (self.slots > 1)}"
        if self._where.device == "cpu":
            where = f"on {n_cores()} cores, {self._threads} thread{'s' * (self._threads > 1)} each"
        else:
            where = (
                f"on GPU {', '.join(self._cards)}"
                + f", up to {-(-self.slots // len(self._cards))} on one"
                * (self.slots > len(self._cards))
            )
        limits = [f"{self._limits.timeout_s / 60:g} min"] * bool(self._limits.timeout_s)
        limits += [f"{self._limits.memory_gb:g} GiB"] * bool(self._limits.memory_gb)
        return f"local: {what} {where}" + f"; at most {' and '.join(limits)} a trial" * bool(limits)

    def close(self) -> None:
        if self._closed.is_set():
            return
        try:
            running = [slot.future for slot in self._slots if slot.future and not slot.free]
            for future in running:
                future.cancel()
            # The keeper kills those that do not end in time; Pebble looks ten times a second.
            wait_first([future.inner for future in running], self._limits.grace_s + SURE_S)
        finally:
            self._closed.set()
            self._keeper.join()
            for slot in self._slots:  # all stop before one is joined, which takes 0.1 s
                slot.stop()
            for slot in self._slots:
                slot.join()
            self._spawner.shutdown()
            self._guard.close()

    def _keep(self) -> None:
        for slot in self._slots:  # in this thread, so that nobody waits who opens the engine
            self._try(slot.open)
        for look in itertools.count():
            if self._closed.wait(LOOK_S):
                return
            for slot in self._slots:
                self._try(partial(slot.tend, weigh=look % WEIGH_EVERY == 0))

    def _try(self, act: Callable[[], None]) -> None:
        # Where no process can be started `submit` will say so.
        with contextlib.suppress(OSError, BrokenProcessPool):
            if not self._closed.is_set():
                act()

    def _environment(self, card: str) -> dict[str, str | None]:
        limits = dict.fromkeys(THREAD_LIMITS, str(self._threads))
        # Else workers would share the W&B service of this process, which ends with it.
        return limits | {"CUDA_VISIBLE_DEVICES": card, "WANDB_SERVICE": None}


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_cards() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES; parts of a GPU
    (MIG) count as GPUs.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA reads the list up to the first entry that is none, such as -1.
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return read_cards(done.stdout) if done.returncode == 0 else []


def read_cards(listing: str) -> list[str]:
    """The UUIDs that `nvidia-smi -L` lists; its numbers are in another order than CUDA's."""
    cards: list[str] = []
    whole = False  # whether the last card is a GPU of which no part is listed so far
    for line in listing.splitlines():
        uuid = line.rpartition("UUID: ")[2].rstrip(") ")
        if line.startswith("GPU"):
            cards, whole = [*cards, uuid], True
        elif line.strip().startswith("MIG"):
            # A divided GPU can be used by its parts alone.
            cards, whole = [*(cards[:-1] if whole else cards), uuid], False
    return cards


def _shield_children() -> None:
    """Keeps Ctrl-C from the children of this thread from their first moment: they inherit a blocked
    signal.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
