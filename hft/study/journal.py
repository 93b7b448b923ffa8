"""Optuna's journal file under a kernel lock, because the lock it ships with stops everybody when
its holder is killed.

A writer that was killed half way leaves a line without its end. The next one cuts it off before it
appends: glued to the next record it would make the whole file unreadable.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file

from hft.study.locks import StorageError

CHUNK = 1 << 16


class TailLock(BaseJournalFileLock):
    """A lock on the journal itself; whoever gets it finds the file ending with a whole line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        try:
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CLOEXEC
            )  # one that is gone is not to be begun anew
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written ({error}); restore it") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            cut_torn_tail(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        fcntl.flock(
            self._descriptor, fcntl.LOCK_UN
        )  # a fork of this moment would hold on to it beyond close
        os.close(self._descriptor)


def cut_torn_tail(descriptor: int) -> None:
    """Ends the file after its last line end."""
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        start = (
            max(0, end - CHUNK) if end < size else end - 1
        )  # nearly always the last byte is enough
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


LATER = (
    5,
    7,
)  # JournalOperation: parameters and reports; the trial's next line takes them to the disk


class Backend(JournalFileBackend):
    """Syncs where a trial begins, is taken, or ends: in a claim of 20 parameters 4 times, not
    23.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with get_lock_file(self._lock), open(self._file_path, "ab") as file:
                file.write(lines.encode())
                file.flush()
                if any(log["op_code"] not in LATER for log in logs):
                    os.fsync(file.fileno())
        except (
            OSError
        ) as error:  # a full disk, say; what it leaves of a line the next writer cuts off
            raise StorageError(
                f"{self._file_path}: cannot be written ({error}); make room"
            ) from error


def open_journal(path: Path) -> JournalStorage:
    try:
        return JournalStorage(Backend(str(path), lock_obj=TailLock(path)))
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be opened ({error}); make it readable and writable"
        ) from None
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
