"""`hft workspace`: the W&B workspace of a project, as hft/tracking/workspace.py builds it."""

from __future__ import annotations

import argparse
import re
import sys

from hft.spec import UserError, did_you_mean
from hft.tracking.logger.wandb import PROJECT
from hft.tracking.workspace import (
    build_workspace,
    check_online,
    default_entity,
    panels_of,
    read_shown,
    save,
    to_json,
)

USAGE = "hft workspace project=<name> [entity=<team>] [name=<title>] [swept=<path>,...] [dry=true]"
GIVEN = {
    "project": "",
    "entity": "",
    "name": "Grids, studies and backtests",
    "swept": "",
    "dry": "false",
}
ABOUT = """\
Saves a new W&B workspace with panels for grids, studies, training and backtests, and prints the
panels and its address. It shows runs under the names and tags that they were logged with.

  entity=<team>        without it, the user or team that the key belongs to
  swept=optim.lr,bars  config paths of a search space that was typed; those in conf/sweep have
                       their panels already
  dry=true             prints the workspace as JSON, its panels on standard error, and saves
                       nothing; needs no key
"""


class WorkspaceCommandError(UserError):
    """Arguments that `hft workspace` cannot follow."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hft workspace",
        usage=USAGE,
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="+", metavar="project=<name>", help="the W&B project")
    given = _read(parser.parse_args(arguments).words)
    dry = given["dry"] == "true"
    if not dry:
        check_online()
    shown = read_shown(swept=tuple(filter(None, given["swept"].split(","))))
    # A dry run asks no server, so that it has no team of its own.
    entity = given["entity"] or ("" if dry else default_entity())
    workspace = build_workspace(shown, project=given["project"], entity=entity, name=given["name"])
    if dry:
        # Standard output is the JSON alone, to be read by another program.
        sys.stdout.write(to_json(workspace))
        sys.stderr.write(_listed(panels_of(workspace)))
    else:
        address = save(workspace)
        sys.stdout.write(f"{_listed(panels_of(workspace))}{address}\n")
    return 0


def _listed(panels: dict[str, list[str]]) -> str:
    sections = [[f"{section}:", *(f"  {title}" for title in of)] for section, of in panels.items()]
    return "".join(f"{line}\n" for section in sections for line in section)


def _read(words: list[str]) -> dict[str, str]:
    given = dict(GIVEN)
    for word in words:
        name, _, value = word.partition("=")
        if name not in given:
            hint = did_you_mean(name, list(given)) or f", the arguments: {', '.join(given)}"
            raise WorkspaceCommandError(f"hft workspace: no such argument {name!r}{hint}")
        given[name] = value
    for name in ("project", "entity"):
        # Asked here, because W&B would refuse such a name only after the panels were built.
        if not re.fullmatch(PROJECT, given[name]) and (given[name] or name == "project"):
            wrong = f"without / \\ # ? % :, got {given[name]!r}"
            missing = f"and is missing: {name}=<name>"
            raise WorkspaceCommandError(
                f"hft workspace: {name} must be a name {wrong if given[name] else missing}"
            )
    if given["dry"] not in ("true", "false"):
        raise WorkspaceCommandError(
            f"hft workspace: dry must be true or false, got {given['dry']!r}"
        )
    return given
