"""Optuna's journal file under a kernel lock, because the lock it ships with stops everybody when
its holder is killed.

A writer that was killed half way leaves a line without its end. The next one cuts it off before it
appends: glued to the next record it would make the whole file unreadable.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hft.study.locks import StorageError, flocked
from hft.study.optuna_internals import MINOR_OPERATIONS

CHUNK = 1 << 16


class Backend(JournalFileBackend):
    """Syncs where a trial begins, is taken, or ends: in a claim of 20 parameters 4 times, not
    23.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with tail_locked(self.path), self.path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                # A sync took 0.13 ms, and up to 4 ms on a busy disk, where syncing every line gave
                # 69 to 72 trials/s (benchmarks/README.md). What is left out here goes to the disk
                # with the next sync.
                if any(log["op_code"] not in MINOR_OPERATIONS for log in logs):
                    os.fsync(file.fileno())
        except OSError as error:  # a full disk, say; the next writer cuts off what it leaves
            raise StorageError(f"{self.path}: cannot be written ({error}); make room") from error


@contextlib.contextmanager
def tail_locked(path: Path) -> Iterator[None]:
    """Holds a lock on the journal itself, which ends with a whole line then."""
    with contextlib.ExitStack() as held:
        try:
            # A journal that is gone must not be begun anew.
            descriptor = held.enter_context(flocked(path, create=False))
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error}); restore it") from None
        cut_torn_tail(descriptor)
        yield


def cut_torn_tail(descriptor: int) -> None:
    """Ends the file after its last line end."""
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - CHUNK) if end < size else end - 1  # mostly the last byte is enough
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def open_journal(path: Path) -> JournalStorage:
    try:
        return JournalStorage(Backend(path))
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be opened ({error}); make it readable and writable"
        ) from None
    # Optuna's replay raises these for a stranger's lines: no mapping, an unknown operation, a field
    # that is missing.
    except (
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        AttributeError,
        RecursionError,
    ) as error:
        raise StorageError(
            f"{path}: not a journal of ours ({error!r}); restore it, or choose another study"
        ) from None
