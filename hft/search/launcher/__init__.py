"""A function and its task in, a future with its outcome out: where the trials of a sweep run.

Functions stand at the top level of a module, tasks and outcomes are JSON-ready dicts, so that every
engine can send them as text. What a function raises comes back as an outcome too; an engine's own
errors say that it gave none. No engine tries anything twice. To add one: one module here with a
LauncherSpec subclass whose `open` gives an Engine, `conf/launcher/<kind>.yaml`, one test that runs
the conformance suite (tests/launcher/conformance.py).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from hft.spec import Kind, UserError

POLL_S = 0.1

Function = Callable[[dict[str, Any]], dict[str, Any]]


class LauncherError(UserError):
    """An engine that cannot be had as configured."""


class WorkerDied(Exception):
    """The worker ended without an outcome; the message says how."""


class PlaceLost(WorkerDied):
    """The worker's place was taken away, through no fault of its task: a preempted job, a node that
    did not boot.
    """


class OverLimit(Exception):
    """The engine ended the task for a limit of the launcher's; trying it again would end alike."""


class TrialTimeout(OverLimit):
    """The task took longer than it may."""


class MemoryExceeded(OverLimit):
    """The task held more memory than it may."""


class Future(Protocol):
    """The outcome to come of one task."""

    def done(self) -> bool:
        """Whether the task has ended: after `cancel` too only when its worker holds nothing of it
        any more.
        """

    def result(self) -> dict[str, Any]:
        """Waits for the outcome. Raises WorkerDied, OverLimit, and
        concurrent.futures.CancelledError after `cancel`.
        """

    def cancel(self) -> None:
        """Asks the task by SIGTERM to save and end, then kills it; returns at once. Nothing when it
        is done.
        """


@dataclass(frozen=True)
class Where:
    """What an engine has to know of the trials it will run."""

    folder: Path  # the study's
    device: Literal["cpu", "cuda"]
    threads: int  # of one trial
    warm: tuple[str, ...] = ()  # modules that a worker imports when it starts


class Engine:
    """Runs at most `slots` tasks at a time: `submit` is for a caller who has counted those that are
    not done.
    """

    slots: int
    in_process: bool = (
        False  # tasks run in the caller's own process, and see its terminal and its signals
    )

    def submit(self, function: Function, task: dict[str, Any]) -> Future:
        raise NotImplementedError

    def wait(self, futures: Sequence[Future], timeout_s: float) -> None:
        """Returns when one of `futures` is done or the time is over."""
        until = time.monotonic() + timeout_s
        while (
            not any(future.done() for future in futures) and (left := until - time.monotonic()) > 0
        ):
            time.sleep(min(POLL_S, left))

    def describe(self) -> str:
        """One line for the user."""
        raise NotImplementedError

    def close(self) -> None:
        """Cancels what still runs, waits for its end and frees everything; may be called twice."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LauncherSpec(Kind):
    def open(self, where: Where) -> Engine:
        """Starts workers where the engine keeps any, without waiting for them. LauncherError where
        it cannot.
        """
        raise NotImplementedError


def to_text(function: Function, task: dict[str, Any]) -> tuple[str, str]:
    """(name of the function, task) as text for `perform`, wherever it runs."""
    module, name = function.__module__, function.__qualname__
    # A worker's __main__ is another module; a function inside of another has no name that a worker
    # could look up.
    assert module != "__main__", f"{name} must stand in a module that a worker can import"
    assert getattr(sys.modules[module], name, None) is function, (
        f"{module}.{name} must be at the top level"
    )
    return f"{module}:{name}", json.dumps(task)


def perform(function: str, task: str) -> str:
    """In the worker: the outcome as text, `{"status": "failed", "reason": ...}` when the function
    raises.

    The traceback goes to standard error; of a UserError the message alone.
    """
    module, _, name = function.partition(":")
    try:
        return json.dumps(getattr(importlib.import_module(module), name)(json.loads(task)))
    except KeyboardInterrupt:
        raise
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        reason = str(error)
    except BaseException as error:  # SystemExit too: the worker serves the next task
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    sys.stderr.flush()
    return json.dumps({"status": "failed", "reason": reason})
