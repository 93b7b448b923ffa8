"""Where the real captures lie, and the skip (a failure in CI) when they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("HFT_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")


def shared(*parts: str) -> str:
    """A path or glob below the shared data. Where they are absent it skips the test, or fails it
    with CI=true.
    """
    if not SHARED.is_dir():
        reason = (
            f"no captures at {SHARED}: "
            "set HFT_SHARED_DATA to the folder that holds binance_ws and vendor"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(SHARED.joinpath(*parts))
