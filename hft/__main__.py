"""`hft <command>`, also `python -m hft <command>`: one file per command in hft/cli, imported when
it is typed, so that the help costs no library.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys

from hft.system.version import VERSION

COMMANDS = {
    "train": "train one run, or with -m a study of runs",
    "backtest": "score a run on the test period it never saw",
    "runs": "runs, their state, and the command that goes on from each",
    "studies": "studies: status, best trials, export, dashboard",
    "audit": "does anything look ahead? a verdict per kind",
    "check": "does every shipped experiment parse?",
    "schema": "JSON Schemas beside the YAML, for editors",
    "workspace": "the W&B workspace, as code",
    "cache": "what the caches hold, and how to empty them",
}
HYDRAS = ("train", "backtest")  # Hydra reads their arguments, flags and completion


def main(arguments: list[str] | None = None) -> int:
    """The exit status of the command: 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # The shell's completion calls `hft -sc query=bash`: the command typed so far is in COMP_LINE,
    # not among the arguments.
    if arguments[:1] == ["-sc"]:
        return _complete(arguments)
    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    if arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        # argparse's own refusal of a wrong word suggests nothing.
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands: {', '.join(COMMANDS)}"
        parser.error(f"no such command {arguments[0]!r}, {hint}")
    # The first word alone: what follows may be Hydra's grammar, which argparse would refuse.
    command = parser.parse_args(arguments[:1]).command
    module = importlib.import_module(f"hft.cli.{command}")
    try:
        return module.main(arguments[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `hft runs | head`: the reader has seen enough
        # Python flushes standard output once more at exit, which would fail on the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        # Imported here: hft.spec needs pydantic, and the help shall cost no library.
        from hft.spec import UserError

        if not isinstance(error, UserError):
            raise
        sys.stderr.write("error: " + "\n       ".join(str(error).strip().splitlines()) + "\n")
        return 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's name alone: each command reads what follows it."""
    parser = argparse.ArgumentParser(
        prog="hft",
        usage="hft <command> [arguments]",
        description="From raw Bitcoin trades and quotes to an honestly scored trading signal.",
        epilog="hft <command> --help shows the arguments of a command",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=20),
    )
    parser.add_argument("--version", action="version", version=f"hft {VERSION}")
    commands = parser.add_subparsers(
        dest="command", metavar="<command> ...", required=True, title="commands"
    )
    for name, help_ in COMMANDS.items():
        commands.add_parser(name, help=help_, add_help=False)
    return parser


def _complete(arguments: list[str]) -> int:
    """Prints the words that may come next in COMP_LINE, for the completion that
    `eval "$(hft train -sc install=bash)"` installs. Hydra takes the first word of COMP_LINE for the
    program, so `hft` is cut off.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    # Without a space after it the second word is still being typed.
    if len(words) < 2 or (len(words) == 2 and not line[-1].isspace()):
        sys.stdout.write(" ".join(COMMANDS) + "\n")
        return 0
    if words[1] not in HYDRAS:
        return 0
    os.environ["COMP_LINE"] = line.partition(words[0])[2].lstrip()
    return importlib.import_module(f"hft.cli.{words[1]}").main(arguments)


if __name__ == "__main__":
    sys.exit(main())
