"""`hft <command>`, also `python -m hft <command>`: one file per command in hft/cli."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "runs": ("hft.cli.runs", "runs, their state and the command that goes on"),
    "studies": ("hft.cli.studies", "studies: status, best, export, dashboard"),
    "audit": ("hft.cli.audit", "does anything look ahead?"),
    "check": ("hft.config.configs", "does every shipped experiment parse?"),
    "schema": ("hft.config.configs", "JSON Schemas for editors"),
    "workspace": ("hft.cli.workspace", "the W&B workspace, as code"),
}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name not in COMMANDS:
        sys.stderr.write("usage: hft " + "|".join(COMMANDS) + "\n")
        return 2
    module = importlib.import_module(COMMANDS[name][0])
    return module.main([name, *rest] if name in ("check", "schema", "workspace") else rest)


if __name__ == "__main__":
    sys.exit(main())
