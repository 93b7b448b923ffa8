"""One slot of the local engine: a Pebble pool of one worker process, and the one task that it runs.

Pebble keeps the worker alive and says how it ended. The engine itself ends a task (cancel, limits)
by signals to the process, because Pebble calls a cancelled future done while its worker still
saves.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from hft.search.launcher import MemoryExceeded, TrialTimeout, WorkerDied
from hft.search.launcher._worker import serve, start
from hft.system.processes import GroupGuard, kill_group

GIB = 2**30

Begin = Callable[["WorkerProcess", Callable[[], None]], None]  # a process, and what starts it

# A process has one environment, and may have several engines.
_environment_lock = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """The limits of one task; 0 is no limit."""

    timeout_s: float
    memory_gb: float
    grace_s: float  # between SIGTERM and the kill


class WorkerProcess(SpawnProcess):
    """A process that its slot starts; the slot's state stays with the parent."""

    begin: Begin

    def start(self) -> None:
        self.begin(self, super().start)

    def __getstate__(self) -> dict[str, Any]:
        # A slot holds locks, and nothing with a lock can be sent to the child.
        return {name: value for name, value in vars(self).items() if name != "begin"}


class _Context(SpawnContext):
    """Starts one worker and refuses a second. Pebble would start it on the same pipes, whose locks
    the dead worker may have held; and Pebble treats exit code 0 as success, so that the task would
    never finish. Refused, Pebble gives up the pool and its task, and the slot opens another pool.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin: Begin | None = begin

    def Process(self, **given: Any) -> WorkerProcess:  # type: ignore[override]  # a class there
        if self._begin is None:
            raise OSError("the worker of this pool has ended")
        process = WorkerProcess(**given)
        process.begin, self._begin = self._begin, None
        return process


class SlotFuture:
    def __init__(self, slot: Slot, pebbles: ProcessFuture[str]) -> None:
        self.slot = slot
        # Pebble's own future may never end, so that `give_up` needs one which it can end.
        self.inner: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.since = time.monotonic()
        self.ending: Exception | None = None  # why the engine ends it
        self.kill_at = 0.0
        pebbles.add_done_callback(self._take)

    def done(self) -> bool:
        return self.inner.done()

    def result(self) -> dict[str, Any]:
        try:
            outcome = self.inner.result()
        except (ProcessExpired, BrokenProcessPool) as error:
            # What the engine ended the task for says more than how the process died.
            raise self.ending or WorkerDied(self.slot.last_words(error)) from None
        if self.ending:
            raise self.ending
        return json.loads(outcome)

    def cancel(self) -> None:
        self.slot.end(self, CancelledError("cancelled"))

    def give_up(self) -> None:
        with contextlib.suppress(InvalidStateError):
            self.inner.set_exception(BrokenProcessPool())

    def _take(self, pebbles: concurrent.futures.Future[str]) -> None:
        error = pebbles.exception()
        with contextlib.suppress(InvalidStateError):  # the slot gave it up
            if error:
                self.inner.set_exception(error)
            else:
                self.inner.set_result(pebbles.result())


class Slot:
    """`spawner` is the thread that starts every worker: on Linux workers end with it."""

    def __init__(
        self,
        environment: dict[str, str | None],
        initial: tuple[Any, ...],
        limits: Limits,
        *,
        spawner: Executor,
        guard: GroupGuard,
    ) -> None:
        self.environment, self.limits = environment, limits
        self.future: SlotFuture | None = None
        self._initial, self._spawner, self._guard = initial, spawner, guard
        self._pool: ProcessPool | None = None
        self._worker: WorkerProcess | None = None
        self._buried: WorkerProcess | None = None
        # Whether the present worker has had a task, and whether its pool had ended at the last
        # look.
        self._given = self._broken = False
        # Reentrant, because `tend` may open a pool.
        self._lock = threading.RLock()

    @property
    def free(self) -> bool:
        return self.future is None or self.future.done()

    def open(self) -> None:
        """Starts a worker where there is none."""
        with self._lock:
            self._live_pool()

    def submit(self, function: str, task: str) -> SlotFuture:
        with self._lock:
            pool = self._live_pool()
            self._given = True
            self.future = SlotFuture(self, pool.schedule(serve, args=(function, task)))
            return self.future

    def _live_pool(self) -> ProcessPool:
        # Pebble says how a worker died before it gives up its pool, and would lose a task given in
        # between.
        dead = self._worker is not None and self._worker.exitcode is not None
        if self._pool and self._pool.active and not dead:
            return self._pool
        self.stop()
        self.join()
        self._given = self._broken = False
        self._pool = ProcessPool(
            1, initializer=start, initargs=self._initial, context=_Context(self._begin)
        )
        assert self._pool.active  # to ask is to start it
        return self._pool

    def end(self, future: SlotFuture, why: Exception, *, grace_s: float | None = None) -> None:
        """Sends SIGTERM, on which a training saves; `tend` kills what does not end in time."""
        with self._lock:
            if future.done() or future.ending:
                return
            grace_s = self.limits.grace_s if grace_s is None else grace_s
            future.ending, future.kill_at = why, time.monotonic() + grace_s
            self._signal(signal.SIGTERM if grace_s else signal.SIGKILL)

    def tend(self, *, weigh: bool) -> None:
        """Called a few times a second: checks limits, kills what is due, and mends what Pebble does
        not notice.
        """
        with self._lock:
            self._mend()
            future, now = self.future, time.monotonic()
            if future is None or future.done():
                return
            if future.ending:
                if now >= future.kill_at:
                    self._signal(signal.SIGKILL)
                return
            self._check_time(future, now - future.since)
            if weigh and self.limits.memory_gb:
                self._check_memory(future)

    def stop(self) -> None:
        """Ends the pool and its worker. Its task must be done: Pebble would leave it pending for
        ever.
        """
        if self._pool:
            self._pool.stop()  # type: ignore[no-untyped-call]  # Pebble has no types for it
            self._signal(signal.SIGKILL)

    def join(self) -> None:
        if self._pool:
            self._pool.join()
            self._pool = None
        self._bury()
        if self.future and not self.free:
            self.future.give_up()

    def last_words(self, error: Exception) -> str:
        """How the worker ended that has given `error`."""
        worker = self._worker or self._buried
        code = worker.exitcode if worker else None
        if isinstance(error, ProcessExpired):
            code = error.exitcode
        if code is None or code >= 0:
            return f"the worker ended without an outcome (exit code {code})"
        hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        return f"the worker was ended by {signal.strsignal(-code)}{hint} (exit code {code})"

    def _check_time(self, future: SlotFuture, passed_s: float) -> None:
        limit_s = self.limits.timeout_s
        if limit_s and passed_s > limit_s:
            message = f"ran {passed_s / 60:.2g} min, launcher.timeout_min allows {limit_s / 60:.2g}"
            self.end(
                future,
                TrialTimeout(f"{message}; raise it, or train for fewer epochs (trainer.epochs)"),
            )

    def _check_memory(self, future: SlotFuture) -> None:
        used, limit = self._held_gb(), self.limits.memory_gb
        if used > limit:
            message = f"held {used:.2f} GiB with its processes, launcher.memory_gb allows {limit:g}"
            remedy = "raise it and lower launcher.workers, or make the trial smaller"
            self.end(future, MemoryExceeded(f"{message}; {remedy}"), grace_s=0)

    def _held_gb(self) -> float:
        import psutil

        if self._worker is None:  # it is being replaced
            return 0.0
        held = 0
        with contextlib.suppress(psutil.Error):  # processes that end meanwhile
            process = psutil.Process(self._worker.pid)
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held += member.memory_info().rss
        return held / GIB

    def _mend(self) -> None:
        """Ends what a dead worker left running, and starts another.

        A worker that died before it had a task would do so again: the next `submit` tries once
        more.
        """
        broken = self._pool is not None and not self._pool.active
        if broken:
            self._bury()
        if broken and self._broken and self.future and not self.free:
            self.future.give_up()  # Pebble gives up the tasks it knows, not one that came meanwhile
        if broken and self.free and self._given:
            self.open()
            broken = False
        self._broken = broken

    def _signal(self, number: signal.Signals) -> None:
        if self._worker is None:
            return
        pid = _pid(self._worker)
        if number == signal.SIGKILL:
            kill_group(pid)
        with contextlib.suppress(ProcessLookupError):  # it may not lead its group yet
            os.kill(pid, number)

    def _begin(self, process: WorkerProcess, spawn: Callable[[], None]) -> None:
        """Starts `process`, this slot's next worker."""
        self._spawner.submit(self._spawn, spawn).result()
        self._worker = process
        self._guard.add(_pid(process))

    def _spawn(self, spawn: Callable[[], None]) -> None:
        # Set before the child starts, because libraries read thread counts and cards as they are
        # imported.
        with _environment(self.environment):
            spawn()

    def _bury(self) -> None:
        """Kills what a dead worker left running."""
        worker, self._worker = self._worker, None
        if worker:
            kill_group(_pid(worker))
            self._guard.remove(_pid(worker))
            self._buried = worker


def _pid(process: WorkerProcess) -> int:
    assert process.pid is not None, "the process has been started"
    return process.pid


@contextlib.contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Sets `values` in this process's environment while a child starts; None takes one out."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in values}
        try:
            _set(values)
            yield
        finally:
            _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
