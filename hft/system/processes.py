"""Child processes that end with their parent, whatever ends it, and whose own children end too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess

PR_SET_PDEATHSIG = 1

# Reads "+<group>" and "-<group>" until its input ends, then kills the groups that are left.
_WATCH = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


def end_with_parent() -> None:
    """Call it in a worker: it ignores Ctrl-C, which the parent handles, and ends with its parent.

    Without this a worker whose parent was killed would wait for work for ever. On Linux it ends
    with the parent's THREAD that started it, so that thread must live as long as the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        # The thread above cannot run while a long call into C holds the interpreter's lock.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    # sys.exit() would end this thread alone.
    os._exit(1)


def kill_group(leader: int) -> None:
    """Kills what is left of a process group; does nothing where the group is gone."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


class GroupGuard:
    """A small process that outlives this one and then kills the process groups left behind.

    A killed worker cannot end its children. They (the processes of a loader, say) may notice its
    end after seconds or never.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _WATCH]
        # The guard has a session of its own, because Ctrl-C in a terminal goes to the whole group.
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=null,
            stderr=null,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # because of stdin=PIPE
        self._pipe = self._process.stdin

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kills the groups that were not removed."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        # Somebody may have killed the guard; end_with_parent() then does what it can.
        with contextlib.suppress(OSError):
            # The pipe is unbuffered and a line is short, so that it arrives whole from any thread.
            self._pipe.write(line.encode())
