"""`hft runs`: the runs of a folder, newest first: what each was asked, what it came to, and the
command that goes on from it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hft.runs.folder import Run, RunError
from hft.runs.registry import list_runs
from hft.system.commands import typed
from hft.tracking.tracker import kinds_of

# What tells one run from another at a glance; `--json` has every kind.
SHOWN_KINDS = ("data", "bars", "labels", "splits", "model", "loss", "baseline")
INDENT = "    "


@dataclass(frozen=True)
class Row:
    """A run as it is listed; of one that cannot be read, `reason` says why."""

    run: str
    state: str
    objective: str = ""
    value: float | None = None
    experiment: str = ""
    kinds: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    next: str = ""
    reason: str = ""


def describe(run: Run) -> Row:
    try:
        state, config = run.state, run.read_config()
        # Before its end a run has no metrics.json, and asking for one would call the run
        # unreadable.
        value = run.read_metrics().get(config["objective"]) if state == "done" else None
        return Row(
            run.id,
            state,
            objective=str(config["objective"]),
            value=None if value is None else float(value),
            experiment=str(config.get("experiment") or ""),
            kinds=kinds_of(config),
            overrides=tuple(run.read_overrides()),
            tags=tuple(str(tag) for tag in config["tags"]),
            next=_following(run, state),
        )
    # A stranger's config may hold anything, and one bad folder must not end the list.
    except (RunError, KeyError, TypeError, ValueError) as error:
        return Row(run.id, "unreadable", reason=str(error))


def _following(run: Run, state: str) -> str:
    if state == "done":
        return typed("backtest", f"ckpt={run.id}")
    return typed("train", f"resume={run.id}") if state in ("interrupted", "failed") else ""


def to_text(rows: list[Row], *, width: int) -> str:
    """A paragraph per run. Its id, state and value stand first and are never cut; commands and
    overrides break between words only.
    """
    return "\n".join(line for row in rows for line in _lines(row, width))


def _lines(row: Row, width: int) -> list[str]:
    value = "" if row.value is None else f"{row.value:.6g}"
    # A run's id has 20 characters and `interrupted` 11: values stand below each other.
    lines = [f"{row.run:20} {row.state:11} {value:>9} {row.objective}".rstrip()]
    kinds = [f"{group}={row.kinds[group]}" for group in SHOWN_KINDS if group in row.kinds]
    experiment = [f"experiment={row.experiment}"] if row.experiment else []
    # What an override of a whole group says, the kinds say too.
    own = [o for o in row.overrides if o not in (*experiment, *kinds)]
    parts = [[*experiment, *kinds], own, [f"tags={','.join(row.tags)}"] if row.tags else []]
    lines += [line for part in parts for line in _wrapped(" ".join(part), width)]
    lines += _wrapped(row.reason, width)
    return [*lines, *([INDENT + row.next] if row.next else [])]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hft runs", description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs", type=Path, help="of runs: runs")
    parser.add_argument("--json", action="store_true", help="a list of objects, one per run")
    return parser


def main(arguments: list[str]) -> int:
    asked = make_parser().parse_args(arguments)
    rows = [describe(run) for run in list_runs(asked.folder)]
    if asked.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    elif rows:
        width = shutil.get_terminal_size().columns
        sys.stdout.write(to_text(rows, width=width) + "\n")
    else:
        sys.stdout.write(f"no runs in {asked.folder}; begin one: {typed('train')}\n")
    return 0
