"""Commands as a user types them, for messages that tell what to do next."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of a checkout; site-packages where hft is installed
SCRIPTS = ("train", "backtest")  # a checkout has each as <name>.py beside hft/


def typed(command: str, *arguments: str) -> str:
    """`python train.py resume=...` in the checkout's own folder, `hft train resume=...` elsewhere:
    the one that works where the message is read.
    """
    script = ROOT / f"{command}.py"
    is_here = command in SCRIPTS and script.is_file() and Path.cwd() == ROOT
    return " ".join([f"python {script.name}" if is_here else f"hft {command}", *arguments])


def name_successor(old: str, *commands: str) -> int:
    """Says what is typed now in place of `python -m <old>`; the exit status of a wrong command."""
    now = " or ".join(f"`hft {command}`" for command in commands)
    sys.stderr.write(f"error: `python -m {old}` is {now} now; --help shows the arguments\n")
    return 2
