"""Commands as a user types them, for messages that tell what to do next."""

from __future__ import annotations

from hft.spec import PACKAGE

SCRIPTS = ("train", "backtest")  # which a checkout has as <name>.py beside hft/


def typed(command: str, *arguments: str) -> str:
    """`python train.py resume=...` in a checkout, `hft train resume=...` where hft is installed."""
    is_script = command in SCRIPTS and (PACKAGE.parent / f"{command}.py").is_file()
    return " ".join([f"python {command}.py" if is_script else f"hft {command}", *arguments])
