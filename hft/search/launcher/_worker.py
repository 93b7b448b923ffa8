"""What a worker process of the local engine runs: `start` once, `serve` for each task."""

from __future__ import annotations

import importlib
import json
import os
import signal
import traceback

from hft.search.launcher import perform
from hft.study.outcome import Outcome, Status
from hft.system.processes import end_with_parent


def start(warm: tuple[str, ...], share: float) -> None:
    """Leads a process group of its own, imports `warm`, and takes `share` of its card's memory."""
    os.setpgid(0, 0)
    end_with_parent()
    try:
        for module in warm:
            importlib.import_module(module)
        if share < 1:
            limit_card(share)
    except Exception:  # a task will fail with a reason; a worker that ends here starts again
        traceback.print_exc()


def limit_card(share: float) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def serve(function: str, task: str) -> str:
    # Pebble's handler would end the process at once; Lightning saves on SIGTERM only where it finds
    # the default one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return perform(function, task)
    except KeyboardInterrupt:  # the terminal's does not reach a worker: the task raised it
        return json.dumps(Outcome(status=Status.FAILED, reason="KeyboardInterrupt").plain())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
