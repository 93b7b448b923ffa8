"""The studies below one root, from the command line: `hft studies status|best|export|dashboard
study=<name>`.

Without a command it lists them. A study's folder says where its storage is; `storage=` names
another address of it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft.spec import UserError, did_you_mean
from hft.study.find import REMEDY, StudiesError, find_study, names_of_studies

if TYPE_CHECKING:
    from hft.study.study import Study

HOST = "localhost"
LOOK_UP_S = 0.2
OPTIONS = {"study": "", "sweeps": "sweeps", "storage": "", "port": "8080"}
USAGE = """usage: hft studies [sweeps=<folder>]
       hft studies <command> study=<name> [sweeps=<folder>] [storage=<address>] [port=<port>]

  (none)     the studies in the folder of sweeps (sweeps)
  status     how far a study is, and what runs now
  best       its best trial, or the Pareto front, with the lines to paste
  export     writes results.parquet, best/ and report.html into its folder
  dashboard  serves optuna-dashboard on its storage (port 8080)
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    try:
        command, options = read_arguments(arguments)
        COMMANDS[command](options)
    except UserError as error:
        sys.stderr.write("error: " + "\n       ".join(str(error).strip().splitlines()) + "\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def read_arguments(arguments: list[str]) -> tuple[str, dict[str, str]]:
    """The command ("" lists) and every option with its value."""
    options, commands, seen = dict(OPTIONS), [], set()
    for argument in arguments:
        name, given, value = argument.partition("=")
        if not given:
            commands.append(argument)
        elif name not in OPTIONS:
            hint = did_you_mean(name, list(OPTIONS)) or f"; one of {', '.join(OPTIONS)}"
            raise StudiesError(f"{argument}: no such option{hint}")
        elif not value:
            raise StudiesError(f"{name}=: must have a value; leave it out, or give one")
        elif name in seen:
            raise StudiesError(f"{argument}: {name} is given twice, take one out")
        else:
            seen.add(name)
            options[name] = value
    strange = [word for word in commands if word not in COMMANDS]
    if len(commands) == 2 and len(strange) == 1 and not options["study"]:
        raise StudiesError(
            f"{strange[0]}: no such command; a study is named with study={strange[0]}"
        )
    if len(commands) > 1:
        raise StudiesError(f"{' '.join(commands)}: one command at a time")
    command = commands[0] if commands else ""
    if command not in COMMANDS:
        known = [name for name in COMMANDS if name]
        raise StudiesError(
            f"{command}: no such command{did_you_mean(command, known)} (one of {', '.join(known)})"
        )
    if bool(command) != bool(options["study"]):
        which = (
            f"{command}: which study? study=<name>"
            if command
            else f"study={options['study']}: for which command?"
        )
        known = (
            ", ".join(names_of_studies(Path(options["sweeps"])))
            if command
            else ", ".join(n for n in COMMANDS if n)
        )
        raise StudiesError(f"{which} (one of {known or 'none yet'})")
    return command, options


def _open(options: dict[str, str]) -> Study:
    return find_study(Path(options["sweeps"]), options["study"], options["storage"])


def _list(options: dict[str, str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sweeps = Path(options["sweeps"])
    names = names_of_studies(sweeps)
    if not names:
        where = (
            f"there are no studies in {sweeps}" if sweeps.is_dir() else f"{sweeps}: no such folder"
        )
        raise StudiesError(f"{where}; {REMEDY}")
    table = Table(
        title=f"studies in {sweeps}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("study", overflow="fold")
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("best", overflow="fold")
    for name in names:
        table.add_row(Text(name), *(Text(cell) for cell in _row(sweeps, name)))
    Console(markup=False, highlight=False).print(table)


def _row(sweeps: Path, name: str) -> tuple[str, str]:
    """One bad study (a server that is down, a folder from elsewhere) does not hide the others."""
    from hft.study.trials import run_id, total, values_of

    try:
        study = find_study(sweeps, name)
        counts, best = study.counts(), study.best()
    except UserError as error:
        return "-", str(error).splitlines()[0]
    done = f"{counts.complete + counts.pruned + counts.failed}/{total(study)}"
    if not best:
        return done, f"none by {' and '.join(study.sweep.objectives)}"
    values = zip(study.sweep.objectives, values_of(best[0]), strict=True)
    return done, " ".join([*(f"{n}={v:.6g}" for n, v in values), run_id(study, best[0].number)])


def _status(options: dict[str, str]) -> None:
    from hft.study.tables import print_progress

    print_progress(_open(options))


def _best(options: dict[str, str]) -> None:
    from hft.study.tables import print_best

    study = _open(options)
    if not print_best(study):
        raise StudiesError(f"study {study.name}: no trial has completed within its constraints yet")


def _export(options: dict[str, str]) -> None:
    from hft.study.export import export

    for path in export(_open(options)):
        sys.stdout.write(f"{path}\n")


def _dashboard(options: dict[str, str]) -> None:
    study, port = _open(options), _free_port(options["port"])
    import optuna_dashboard

    number = study.optuna._study_id
    sys.stdout.write(
        f"study {study.name}: http://{HOST}:{port}/dashboard/studies/{number}  (Ctrl-C ends it)\n"
    )
    sys.stdout.flush()
    where = {"host": HOST, "port": port}
    # Not in the main thread: what answers a request swallows a Ctrl-C. And looking up, because
    # polars restarts waits.
    server = threading.Thread(
        target=optuna_dashboard.run_server, args=(study.address.open(),), kwargs=where, daemon=True
    )
    server.start()
    with contextlib.suppress(KeyboardInterrupt):
        while server.is_alive():
            server.join(LOOK_UP_S)


def _free_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise StudiesError(f"port={text}: must be a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            reason = error.strerror or repr(error)
            raise StudiesError(
                f"port={text}: cannot be served ({reason}); choose another: port=<port>"
            ) from None
    return int(text)


COMMANDS: dict[str, Callable[[dict[str, str]], Any]] = {
    "": _list,
    "status": _status,
    "best": _best,
    "export": _export,
    "dashboard": _dashboard,
}
