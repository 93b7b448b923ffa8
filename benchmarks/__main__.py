"""`python -m benchmarks [names] [--quick]`: a table for people, then one JSON line for programs."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import NAMES, Result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; all without any"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few repeats: numbers are rough"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: no such benchmark; one of {', '.join(NAMES)}")
    # One thread a side, as build_bars has one: POLARS_MAX_THREADS=2 asks for the other comparison.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    console = Console(stderr=not sys.stdout.isatty())
    results = []
    for name in chosen.names or NAMES:
        with console.status(f"measuring {name}"):
            module = importlib.import_module(f"benchmarks.{name}")
            found = module.measure(**(module.QUICK if chosen.quick else module.FULL))
            results += found if isinstance(found, list) else [found]
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    out.print(make_table(results, quick=chosen.quick))
    for result in results:
        out.print(f"{result.name}: {escape(result.data)}", style="dim")
    report = {"machine": machine(), "quick": chosen.quick} | {
        result.name: result.plain() for result in results
    }
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    return 0


def make_table(results: list[Result], *, quick: bool) -> Table:
    table = Table(
        title="hft benchmarks, medians" + (", quick: rough" if quick else ""), caption=machine()
    )
    for column in ("benchmark", "side", "rate", "first side is", "expected"):
        table.add_column(
            column, justify="right" if column in ("rate", "first side is") else "left", no_wrap=True
        )
    for result in results:
        for i, side in enumerate(result.rates):
            table.add_row(
                escape(result.name) if i == 0 else "",
                escape(side),
                result.shown(side),
                result.compared(side) if i else "",
                verdict(result, side if i else ""),
            )
        table.add_section()
    return table


def verdict(result: Result, side: str) -> str:
    """Whether the expectation about `side` is met, as a cell; "" is the one about the own rate."""
    if side not in result.expected:
        return ""
    limit, way = result.expected[side], "under" if result.cost else "over"
    met = "[green]met" if result.met(side) else "[red]missed"
    return f"{met}[/] ({way} {limit:,.4g}{' times' if side else ''})"


def machine() -> str:
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, load = f"{os.cpu_count()} CPU cores ({platform.machine()})", os.getloadavg()[0]
    return f"{cores}, {gib:.0f} GiB, OMP_NUM_THREADS {threads}, load average {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())
