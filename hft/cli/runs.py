"""`hft runs`: the runs of a folder, with their state, objective and the command that goes on."""

from __future__ import annotations

import sys
from pathlib import Path

from hft.runs.folder import Run, RunError
from hft.runs.registry import list_runs


def print_runs(root: Path) -> None:
    """The runs below `root`, newest first: state, objective, and the command that goes on from
    each.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"runs in {root}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("objective, tags and next", overflow="fold")
    for run in list_runs(root):
        table.add_row(run.id, *_state_and_lines(run))
    Console().print(table, markup=False)


def _state_and_lines(run: Run) -> tuple[str, str]:
    try:
        state, config = run.state, run.read_config()
        value = run.read_metrics().get(config["objective"]) if state == "done" else None
        objective = config["objective"] + ("" if value is None else f"={value:.6g}")
        lines = [" ".join([objective, *config["tags"]])]
    except (RunError, KeyError, TypeError, ValueError) as error:
        return "unreadable", str(error)
    going_on = f"python train.py resume={run.id}"
    following = {
        "done": f"python backtest.py ckpt={run.id}",
        "interrupted": going_on,
        "failed": going_on,
    }
    return state, "\n".join([*lines, following.get(state, "")]).strip()


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stderr.write("usage: hft runs [folder of runs]\n")
        return 2
    print_runs(Path(arguments[0] if arguments else "runs"))
    return 0
