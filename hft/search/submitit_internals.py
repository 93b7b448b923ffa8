"""What we use of submitit beyond its public names, each with a test that fails by its name when the
pin moves (tests/search/test_submitit_internals.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from submitit import SlurmExecutor


def make_executor(folder: Path, *, python: str, parameters: dict[str, Any]) -> SlurmExecutor:
    """An executor that submits at once and runs no job twice."""
    executor = SlurmExecutor(folder, max_num_timeout=0, python=python)
    executor.update_parameters(**parameters)
    executor._throttling = 0.0  # submitit sleeps 0.2 s between two jobs
    return executor


def submission_text(executor: SlurmExecutor, command: str) -> str:
    """The batch file that a job with `command` would be submitted as."""
    return executor._make_submission_file_text(command, "")
