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
        return 128 + self.signal_number


class Keeper:
    """Keeps the state of one training at `path`."""

    def __init__(self, learner: Learner, path: Path, identity: dict[str, Any]) -> None:
        self.learner, self.path, self.identity = learner, path, identity
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
        if self.signal_number == signal.SIGINT == signal_number:
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def signals(keeper: Keeper) -> Iterator[Callable[[], None]]:
    """Gives what puts our handlers in the place of Lightning's, which end a fit at SIGTERM with
    status 0; puts the handlers of before back at the end.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    in_main = threading.current_thread() is threading.main_thread()

    def install() -> None:
        for number in before if in_main else ():
            signal.signal(number, keeper.on_signal)

    try:
        yield install
    # Lightning raises it for a signal before our handlers stood, and for a second Ctrl-C.
    except SystemExit as error:
        from hft.learning.lightning_internals import is_sigterm

        if is_sigterm(error):
            raise keeper.interrupted(signal.SIGTERM) from None
        if isinstance(error.__context__, KeyboardInterrupt):
            raise keeper.interrupted(signal.SIGINT) from None
        raise
    finally:
        for number, handler in before.items() if in_main else ():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
