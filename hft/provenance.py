"""What ran: versions of the libraries that can change a result, and the state of the checkout."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from typing import Any

from hft.spec import PACKAGE

LIBRARIES = ("torch", "pytorch-lightning", "polars", "numba", "numpy", "pydantic", "hydra-core", "optuna")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a result, read without importing any."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_state() -> dict[str, Any]:
    """Commit of the checkout and whether files differ from it; both null outside a checkout or without git."""
    commit = _git("rev-parse", "--verify", "HEAD")
    changes = _git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    # No optional locks: looking must not disturb a git command that runs at the same time.
    command = ["git", "-C", str(PACKAGE.parent), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
