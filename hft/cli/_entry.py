"""What the two commands that Hydra reads have in common: help, and one message for a mistake."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from hft.cli._help import help_text
from hft.config.explain import explain
from hft.system.conf import CONF


def run(entry: str, task: Callable[[], Any], read: Callable[..., Any], arguments: list[str]) -> int:
    """The exit status of `task`, Hydra's wrapping of an entry point, on these arguments.

    `read` makes the typed job of what they compose, or raises a UserError that names every mistake
    in them.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text(entry, CONF))
        return 0
    # Without it the collections at exit walk all of torch and Lightning: 1.2 of 8 CPU seconds.
    atexit.register(gc.freeze)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # explain() prints, not Hydra's own trimming
    # Hydra reads sys.argv itself. Its first word tells completion what is installed: a script, or
    # the command.
    program = sys.argv[0] if sys.argv[0].endswith(f"{entry}.py") else "hft"
    sys.argv[:] = [program, *arguments]
    try:
        task()
    except SystemExit:
        raise
    except BaseException as error:
        return explain(error, entry, read)
    return 0
