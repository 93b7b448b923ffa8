"""A training that is cut short keeps its state in `last.ckpt`, at intervals and when a signal asks
for the end, so that another process goes on with the same bits.

In: a Learner between two steps. Out: the file, and Interrupted once it is saved. Lightning calls
this through KeepState (hft/learning/callbacks.py).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hft.learning.checkpoint import save_state
from hft.learning.learner import Learner
from hft.spec import UserError


class Interrupted(UserError):
    """A signal ended the training and its state is saved: `fit(..., resume=True)` goes on."""

    def __init__(self, signal_number: int, where: str) -> None:
        self.signal_number = signal_number
        super().__init__(f"interrupted by {signal.Signals(signal_number).name} {where}")

    @property
    def exit_status(self) -> int:
        """143 for SIGTERM, 130 for Ctrl-C."""
        # What a shell reports of a process that the signal ended.
        return 128 + self.signal_number


class Keeper:
    """Keeps the state of one training at `path`."""

    def __init__(self, learner: Learner, path: Path, identity: dict[str, Any]) -> None:
        self.learner, self.path, self.identity = learner, path, identity
        # Monotonic: a clock that is set meanwhile neither hastens a save nor holds one up.
        self.signal_number, self.saved = 0, time.monotonic()

    def save(self) -> None:
        save_state(self.path, self.learner.state(), identity=self.identity)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Between two steps. Raises Interrupted after a signal."""
        if self.signal_number or time.monotonic() - self.saved >= self.learner.trainer.save_every_s:
            self.save()
        if self.signal_number:
            raise self.interrupted(self.signal_number)

    def interrupted(self, signal_number: int) -> Interrupted:
        at = self.learner
        where = f"at epoch {at.epoch}, batch {at.batch} of {at.n_batches}"
        return Interrupted(signal_number, f"{where}; the state to resume from is {self.path}")

    def on_signal(self, signal_number: int, _: object) -> None:
        """A second Ctrl-C does not wait for the step to end."""
        # Otherwise only noted: in the middle of a step weights, optimiser and sums do not fit
        # together.
        if self.signal_number == signal.SIGINT == signal_number:
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def signals(keeper: Keeper) -> Iterator[Callable[[], None]]:
    """Yields a function that puts our handlers in the place of Lightning's, which would end a fit
    at SIGTERM with status 0. At the end the handlers of before are back.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # Python lets only the main thread set handlers; a training in another one goes without.
    in_main = threading.current_thread() is threading.main_thread()

    def install() -> None:
        for number in before if in_main else ():
            signal.signal(number, keeper.on_signal)

    try:
        yield install
    # Lightning raises SystemExit for a signal that came before our handlers stood, and turns the
    # KeyboardInterrupt of a second Ctrl-C into one.
    except SystemExit as error:
        from hft.learning.lightning_internals import is_sigterm

        if is_sigterm(error):
            raise keeper.interrupted(signal.SIGTERM) from None
        if isinstance(error.__context__, KeyboardInterrupt):
            raise keeper.interrupted(signal.SIGINT) from None
        raise
    finally:
        # getsignal gives None for a handler that C code set, and signal.signal takes no None.
        for number, handler in before.items() if in_main else ():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
