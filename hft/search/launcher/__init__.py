"""Where the trials of a sweep run: a function and its task in, a future with its outcome out.

Functions stand at the top level of a module; tasks and outcomes are JSON-ready dicts, which every
engine sends as text. An outcome also carries what a function raises; where there is none, the
engine raises an error of its own. No engine runs a task twice. To add an engine: a module here with
a LauncherSpec subclass whose `open` gives an Engine, `conf/launcher/<kind>.yaml`, and a test that
runs the conformance suite (tests/search/launcher/conformance.py). Files that begin with `_` hold
the facts of one engine.
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
from hft.study.outcome import Outcome, Status

POLL_S = 0.1

Function = Callable[[dict[str, Any]], dict[str, Any]]


class LauncherError(UserError):
    """An engine that cannot be opened as configured."""


class WorkerDied(Exception):
    """The worker ended without an outcome; the message says how."""


class PlaceLost(WorkerDied):
    """The worker lost its place, and its task is not to blame: a preempted job, a node that did
    not boot.
    """


class OverLimit(Exception):
    """The engine ended the task at a limit of the launcher; another attempt would end alike."""


class TrialTimeout(OverLimit):
    """The task took longer than it may."""


class MemoryExceeded(OverLimit):
    """The task held more memory than it may."""


class Future(Protocol):
    """The outcome to come of one task."""

    def done(self) -> bool:
        """Whether the task has ended. A cancelled task has ended when its worker holds nothing of
        it any more.
        """
        ...

    def result(self) -> dict[str, Any]:
        """Waits for the outcome. Raises WorkerDied, OverLimit, and
        concurrent.futures.CancelledError after `cancel`.
        """
        ...

    def cancel(self) -> None:
        """Has the task save and end by SIGTERM, and kills it if it does not; returns at once. Does
        nothing when the task is done.
        """
        ...


@dataclass(frozen=True)
class Where:
    """What an engine has to know of the trials it will run."""

    folder: Path  # the study's
    device: Literal["cpu", "cuda"]
    threads: int  # of one trial
    warm: tuple[str, ...] = ()  # modules that a worker imports when it starts


class Engine:
    """Runs at most `slots` tasks at a time; the caller of `submit` counts those that are not
    done.
    """

    slots: int
    in_process: bool = False  # tasks share the caller's process, its terminal and its signals

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
        """Starts workers where the engine keeps any, without waiting for them. Raises
        LauncherError where it cannot.
        """
        raise NotImplementedError


def to_text(function: Function, task: dict[str, Any]) -> tuple[str, str]:
    """The function's name and the task as text, for `perform` in another process."""
    module, name = function.__module__, function.__qualname__
    # A worker's __main__ is another module, and it cannot look up a function inside of a function.
    assert module != "__main__", f"{name} must stand in a module that a worker can import"
    assert getattr(sys.modules[module], name, None) is function, (
        f"{module}.{name} must be at the top level"
    )
    return f"{module}:{name}", json.dumps(task)


def perform(function: str, task: str) -> str:
    """In the worker: the outcome as text, a failed one when the function raises.

    The traceback goes to standard error; of a UserError the message alone.
    """
    module, _, name = function.partition(":")
    try:
        return json.dumps(getattr(importlib.import_module(module), name)(json.loads(task)))
    # Inline, the Ctrl-C is the driver's.
    except KeyboardInterrupt:
        raise
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        reason = str(error)
    except BaseException as error:  # SystemExit too: the worker serves the next task
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    sys.stderr.flush()
    return json.dumps(Outcome(status=Status.FAILED, reason=reason).plain())
