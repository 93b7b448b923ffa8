"""`hft workspace`: the W&B workspace of a project, as hft/tracking/workspace.py builds it."""

from __future__ import annotations

import re
import sys

from hft.spec import UserError, did_you_mean
from hft.tracking.logger.wandb import PROJECT
from hft.tracking.tracker import TrackingError
from hft.tracking.workspace import build_workspace, check_online, read_shown, save, to_json

USAGE = """\
usage: hft workspace project=<name> entity=<team> [name=<title>] [swept=<path>,...] [dry=true]

Saves a new W&B workspace with panels for grids, studies, training and backtests, and prints its address.
  swept=optim.lr,bars  config paths of a search space that was typed; those in conf/sweep have their panels already
  dry=true             prints the workspace as JSON and saves nothing; needs no key
"""


def main(arguments: list[str]) -> int:
    """`hft workspace ...`: the W&B workspace of a project, see hft/tracking/workspace.py."""
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0 if arguments else 2
    try:
        if arguments[0] != "workspace":
            raise TrackingError(
                f"no such command {arguments[0]!r}{did_you_mean(arguments[0], ['workspace'])}\n{USAGE}"
            )
        given = _parse(arguments[1:])
        dry = given["dry"] == "true"
        if not dry:
            check_online()
        shown = read_shown(swept=tuple(filter(None, given["swept"].split(","))))
        workspace = build_workspace(
            shown, project=given["project"], entity=given["entity"], name=given["name"]
        )
        sys.stdout.write(to_json(workspace) if dry else f"{save(workspace)}\n")
        return 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parse(arguments: list[str]) -> dict[str, str]:
    given = {
        "project": "",
        "entity": "",
        "name": "Grids, studies and backtests",
        "swept": "",
        "dry": "false",
    }
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in given:
            hint = did_you_mean(name, list(given)) or f", the arguments: {', '.join(given)}"
            raise TrackingError(f"workspace: no such argument {name!r}{hint}")
        given[name] = value
    for name in ("project", "entity"):
        if not re.fullmatch(PROJECT, given[name]):
            what = (
                f"without / \\ # ? % :, got {given[name]!r}"
                if given[name]
                else f"and is missing: {name}=<name>"
            )
            raise TrackingError(f"workspace: {name} must be a name {what}")
    if given["dry"] not in ("true", "false"):
        raise TrackingError(f"workspace: dry must be true or false, got {given['dry']!r}")
    return given
