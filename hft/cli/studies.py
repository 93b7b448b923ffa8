"""`hft studies`: the studies below one root, how far each is, its best trials, its reports.

A study's folder says where its storage is; `storage=` names another address of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft.spec import UserError, did_you_mean
from hft.study.find import StudiesError, find_study, names_of_studies, remedy
from hft.system.commands import typed

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

# This machine alone: optuna-dashboard asks for no password.
HOST = "localhost"
LOOK_UP_S = 0.2
OPTIONS = {"study": "", "sweeps": "sweeps", "storage": "", "port": "8080"}
USAGE = """hft studies [sweeps=<folder>] [--json]
       hft studies <command> study=<name> [sweeps=<folder>] [storage=<address>] [--json]
       hft studies dashboard study=<name> [sweeps=<folder>] [storage=<address>] [port=<port>]"""
HELP = """commands:
  (none)     the studies in the folder of sweeps (sweeps)
  status     how far a study is, and what runs now
  best       its best trial, or the Pareto front, with the lines to paste
  export     writes results.parquet, best/ and report.html into its folder
  dashboard  serves optuna-dashboard on its storage (port 8080), with a note per trial
"""


def main(arguments: list[str]) -> int:
    """Raises UserError for what the user can mend."""
    parser = make_parser()
    # Intermixed, so that --json may stand between the words too.
    asked = parser.parse_intermixed_args(arguments)
    command, options = read_words(asked.words)
    if asked.json and command not in PLAIN:
        raise StudiesError(f"{command}: has no --json; take it out")
    if asked.json:
        # JSON has no nan: what is not finite is null (`_plain`), and a slip fails here, not in the
        # reader.
        sys.stdout.write(json.dumps(PLAIN[command](options), indent=1, allow_nan=False) + "\n")
    else:
        COMMANDS[command](options)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hft studies",
        usage=USAGE,
        description="The studies below one root: how far each is, its best trials, its reports.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="<word>", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="of the list, of status and of best")
    return parser


def read_words(words: list[str]) -> tuple[str, dict[str, str]]:
    """The command ("" lists) and every option with its value."""
    options, commands, seen = dict(OPTIONS), [], set()
    for word in words:
        name, given, value = word.partition("=")
        if not given:
            commands.append(word)
        elif name not in OPTIONS:
            hint = did_you_mean(name, list(OPTIONS)) or f"; one of {', '.join(OPTIONS)}"
            raise StudiesError(f"{word}: no such option{hint}")
        elif not value:
            raise StudiesError(f"{name}=: must have a value; leave it out, or give one")
        elif name in seen:
            raise StudiesError(f"{word}: {name} is given twice, take one out")
        else:
            seen.add(name)
            options[name] = value
    return _command(commands, options), options


def _command(commands: list[str], options: dict[str, str]) -> str:
    # The list itself has no name to type.
    known = [name for name in COMMANDS if name]
    strange = [word for word in commands if word not in known]
    # `hft studies best maker_v1`, as one would guess it.
    if len(commands) == 2 and len(strange) == 1 and not options["study"]:
        raise StudiesError(
            f"{strange[0]}: no such command; a study is named with study={strange[0]}"
        )
    if len(commands) > 1:
        raise StudiesError(f"{' '.join(commands)}: one command at a time")
    if strange:
        hint = did_you_mean(strange[0], known)
        raise StudiesError(f"{strange[0]}: no such command{hint} (one of {', '.join(known)})")
    if commands and not options["study"]:
        names = names_of_studies(Path(options["sweeps"]))
        one_of = ", ".join(names) or "none yet"
        raise StudiesError(f"{commands[0]}: which study? study=<name> (one of {one_of})")
    if options["study"] and not commands:
        one_of = ", ".join(known)
        raise StudiesError(f"study={options['study']}: for which command? (one of {one_of})")
    return commands[0] if commands else ""


def _open(options: dict[str, str]) -> Study:
    return find_study(Path(options["sweeps"]), options["study"], options["storage"])


def _found(options: dict[str, str]) -> list[dict[str, Any]]:
    """The studies of the list. One bad study (a server that is down, a folder from elsewhere) does
    not hide the others: its `reason` says why.
    """
    sweeps = Path(options["sweeps"])
    names = names_of_studies(sweeps)
    if not names:
        lacking = f"there are no studies in {sweeps}"
        where = lacking if sweeps.is_dir() else f"{sweeps}: no such folder"
        raise StudiesError(f"{where}; {remedy()}")
    return [_entry(sweeps, name) for name in names]


def _entry(sweeps: Path, name: str) -> dict[str, Any]:
    try:
        study = find_study(sweeps, name)
        best = study.best()
        # One line a study, also where it has a Pareto front: `best` lists the front.
        return {"study": name, **_progress(study), "best": [_plain(study, t) for t in best[:1]]}
    except UserError as error:
        return {"study": name, "reason": str(error)}


def _progress(study: Study) -> dict[str, Any]:
    from hft.study.trials import total

    counts = study.counts()
    return {
        "objectives": list(study.sweep.objectives),
        "total": total(study),
        "done": counts.complete + counts.pruned + counts.failed,
        **asdict(counts),
    }


def _plain(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    """A trial as JSON: its numbers by name, null where they are not finite, and its parameters."""
    from hft.study.trials import numbers_of, params_of, run_id

    numbers = numbers_of(study, trial).items()
    finite = {n: v if v is not None and math.isfinite(v) else None for n, v in numbers}
    return {
        "run": run_id(study, trial.number),
        "numbers": finite,
        "params": params_of(trial),
    }


def _list(options: dict[str, str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    entries = _found(options)
    title = f"studies in {options['sweeps']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("study", overflow="fold")
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("best", overflow="fold")
    for entry in entries:
        table.add_row(*(Text(cell) for cell in _row(entry)))
    Console(markup=False, highlight=False).print(table)


def _row(entry: dict[str, Any]) -> tuple[str, str, str]:
    if "reason" in entry:
        # The first line is the fault; what follows it would make the table unreadable, and `status`
        # of the study says the rest.
        return entry["study"], "-", entry["reason"].splitlines()[0]
    done = f"{entry['done']}/{entry['total']}"
    if not entry["best"]:
        return entry["study"], done, f"none by {' and '.join(entry['objectives'])}"
    (best,) = entry["best"]
    values = [f"{name}={_number(best['numbers'][name])}" for name in entry["objectives"]]
    return entry["study"], done, " ".join([*values, best["run"]])


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _status(options: dict[str, str]) -> None:
    from hft.study.progress import print_progress

    print_progress(_open(options))


def _plain_status(options: dict[str, str]) -> dict[str, Any]:
    study = _open(options)
    running = [trial for trial in study.trials() if trial.state.name == "RUNNING"]
    return {
        "study": study.name,
        **_progress(study),
        "best": [_plain(study, trial) for trial in study.best()],
        "now": [
            _plain(study, trial) | {"step": trial.last_step, "reported": _reported(trial)}
            for trial in running
        ],
    }


def _reported(trial: FrozenTrial) -> float | None:
    value = None if trial.last_step is None else trial.intermediate_values[trial.last_step]
    return value if value is not None and math.isfinite(value) else None


def _best(options: dict[str, str]) -> None:
    from hft.study.tables import print_best

    study = _open(options)
    if not print_best(study):
        raise _none_yet(study)


def _plain_best(options: dict[str, str]) -> list[dict[str, Any]]:
    from hft.study.trials import next_lines

    study = _open(options)
    best = study.best()
    if not best:
        raise _none_yet(study)
    return [_plain(study, trial) | {"next": next_lines(study, trial)} for trial in best]


def _none_yet(study: Study) -> StudiesError:
    status = typed("studies", "status", f"study={study.name}")
    return StudiesError(
        f"study {study.name}: no trial has completed within its constraints yet; "
        f"{status} says how far it is"
    )


def _export(options: dict[str, str]) -> None:
    from hft.study.export import export

    for path in export(_open(options)):
        sys.stdout.write(f"{path}\n")


def _dashboard(options: dict[str, str]) -> None:
    study, port = _open(options), _free_port(options["port"])
    from hft.study.dashboard import serve, write_notes
    from hft.study.optuna_internals import study_id

    write_notes(study)
    page = f"http://{HOST}:{port}/dashboard/studies/{study_id(study.optuna)}"
    sys.stdout.write(f"study {study.name}: {page}  (Ctrl-C ends it)\n")
    # Into a pipe the address would else be written when the server has ended.
    sys.stdout.flush()
    # Not in the main thread: the code that answers a request swallows a Ctrl-C. The main thread
    # looks up again and again, because polars restarts waits.
    where = {"host": HOST, "port": port}
    server = threading.Thread(target=serve, args=(study,), kwargs=where, daemon=True)
    server.start()
    with contextlib.suppress(KeyboardInterrupt):
        while server.is_alive():
            server.join(LOOK_UP_S)


def _free_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise StudiesError(f"port={text}: must be a number from 1 to 65535")
    with socket.socket() as probe:
        # A server that has just ended leaves its port waiting, which is free all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            reason = error.strerror or repr(error)
            raise StudiesError(
                f"port={text}: cannot be served ({reason}); choose another: port=<port>"
            ) from None
    return int(text)


COMMANDS: dict[str, Callable[[dict[str, str]], None]] = {
    "": _list,
    "status": _status,
    "best": _best,
    "export": _export,
    "dashboard": _dashboard,
}
PLAIN: dict[str, Callable[[dict[str, str]], Any]] = {
    "": _found,
    "status": _plain_status,
    "best": _plain_best,
}
