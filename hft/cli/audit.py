"""`hft audit`: does anything look ahead? The exit status is 1 when anything does."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from hft.spec import UserError

if TYPE_CHECKING:
    from hft.runs.lookahead import Finding

# Short, and across midnight: days are joined there.
MARKET = ("experiment=smoke", "data.start=2024-01-01T22:30", "data.end=2024-01-02T01:30")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hft audit", description="Does anything look ahead? A verdict per kind."
    )
    parser.add_argument(
        "overrides", nargs="*", help="as of hft train; bars.size=40, or data=... for another market"
    )
    parser.add_argument("--json", action="store_true", help="a list of objects, one per kind")
    return parser


def main(arguments: list[str]) -> int:
    """1 when a kind sees the future, 2 when the audit cannot run."""
    asked = make_parser().parse_args(arguments)
    # Below the reading of arguments, so that --help loads neither Hydra nor torch.
    from hydra.errors import HydraException
    from rich.console import Console
    from rich.progress import track

    from hft.config.compose import make_config
    from hft.config.configs import TrainConfig
    from hft.runs.lookahead import N_CUTS, audit

    # Standard output is for verdicts alone: with --json another program reads it.
    progress = Console(stderr=True)
    try:
        config = make_config(TrainConfig, [*MARKET, *asked.overrides])
        found = audit(config)
        if progress.is_terminal:
            found = track(found, "audit", transient=True, console=progress)
        # `audit` computes while it is read: what it refuses is raised here.
        findings = list(found)
    except (UserError, HydraException) as error:
        sys.stderr.write("error: " + "\n       ".join(str(error).splitlines()) + "\n")
        return 2
    leaks = sum(bool(f.leak) for f in findings)
    if asked.json:
        sys.stdout.write(json.dumps([asdict(f) for f in findings], indent=1) + "\n")
    else:
        _print(findings, title=f"look-ahead audit on data={config.data.kind}, {N_CUTS} cuts each")
        sys.stdout.write(f"{len(findings)} kinds audited, {leaks} see the future\n")
    return int(leaks > 0)


def _print(findings: list[Finding], *, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("room", "kind", "rows compared", "verdict"):
        table.add_column(column, overflow="fold")
    for f in findings:
        table.add_row(f.room, f.kind, str(f.rows), f"[red]{f.leak}[/red]" if f.leak else "clean")
    Console().print(table)
