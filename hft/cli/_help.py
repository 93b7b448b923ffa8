"""The help of the two entry points: groups with their choices, fields, flags, on one screen.

Read from the YAML alone: Hydra's own help composes everything and prints 300 lines, 38 fee
schedules among them.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from hft.system.commands import typed
from hft.system.conf import read_yaml

WIDTH = 80
OF_BACKTEST = "from_run"  # takes the group as the run was trained; train has no such run
USAGE = {
    "train": """\
usage: {command} [group=choice] [group.field=value] ...   trains one run
       {command} -m [group=a,b] [sweep=choice] ...        trains a study of runs""",
    "backtest": """\
usage: {command} ckpt=<run> [group=choice] [group.field=value] ...
       scores a run on the test period it never saw""",
}
FLAGS = {
    "--cfg job": "prints the config that would run; --resolve fills in its references",
    "-m": "every combination of the values that commas part",
    "-sc install=bash": 'tab completion: eval "$({command} -sc install=bash)"',
    "--hydra-help": "Hydra's own flags",
}


def help_text(entry: str, conf: Path) -> str:
    """The help of `train` or `backtest`, from `<entry>.yaml` and the groups beside it in `conf`."""
    command = typed(entry)
    body = read_yaml(conf / f"{entry}.yaml")
    chosen = _chosen(body.pop("defaults"))
    body.pop("hydra")
    indent = 2 + max(map(len, chosen)) + 2
    lines = [USAGE[entry].format(command=command), "", "groups; what runs without a choice in [ ]:"]
    for group, choice in chosen.items():
        lines += _wrapped(f"  {group}", _choices(conf / group, choice, entry), indent)
    lines += ["", "fields and their values:"]
    lines += _wrapped("", [f"{name}={_shown(value)}" for name, value in body.items()], 2)
    lines += ["", "flags:"]
    width = max(map(len, FLAGS)) + 2
    lines += [f"  {flag:{width}}{text.format(command=command)}" for flag, text in FLAGS.items()]
    return "\n".join(lines) + "\n"


def _chosen(defaults: list[Any]) -> dict[str, Any]:
    """The choice of each group of the entry point, in its order."""
    pairs = [pair for item in defaults if isinstance(item, dict) for pair in item.items()]
    # Hydra's own groups are set by `override ...` and are no choice of a user's.
    return {group: choice for group, choice in pairs if not group.startswith("override ")}


def _choices(folder: Path, choice: Any, entry: str) -> list[str]:
    # A name with an underscore is included by others and cannot be chosen alone.
    names = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
    taken = choice if isinstance(choice, list) else [choice]
    shown = [name for name in names if entry == "backtest" or name != OF_BACKTEST]
    return [f"[{name}]" if name in taken else name for name in shown]


def _shown(value: Any) -> str:
    # As it is typed and as YAML has it.
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def _wrapped(head: str, words: list[str], indent: int) -> list[str]:
    # Whole words, so that a value can be copied from one line.
    return textwrap.wrap(
        f"{head:{indent}}" + " ".join(words),
        WIDTH,
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    )
