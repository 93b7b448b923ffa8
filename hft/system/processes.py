"""Child processes that end with their parent, whatever ends it, and take their own children
along.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import parent_process

PR_SET_PDEATHSIG = 1

# Reads "+<group>" and "-<group>" until the writer is gone, then kills the groups that are left.
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
    """In a worker: Ctrl-C is the parent's affair, and when a kill ends the parent the worker ends
    too, else it would wait for work for ever. On Linux it ends with the THREAD that started it,
    which must live as long.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        # The thread above needs the interpreter, which a long call into C may hold; the kernel does
        # not.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kills all that is left of a process group; nothing where it is gone."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


class GroupGuard:
    """A small process of its own that outlives this one to kill the process groups that it leaves
    behind.

    A killed worker cannot end its children, and they (a loader's processes, say) may notice after
    seconds or never.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _WATCH]
        # In a session of its own: what the terminal sends to this process's group does not reach
        # it.
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=null,
            stderr=null,
            bufsize=0,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kills the groups that were not removed."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(
            OSError
        ):  # it was killed: what is left is the kernel's signal and the thread
            self._process.stdin.write(
                line.encode()
            )  # unbuffered and short: whole, whichever thread writes
