"""A study in optuna-dashboard: a note per trial, with links to what the trial's run left, and a
server of both.

In: a Study. Out: notes in its storage, and a web page for this machine alone. What a trial or a
stranger wrote is escaped: the dashboard shows notes as Markdown, with the HTML in it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from hft.study.optuna_internals import open_trial
from hft.study.report import data_line
from hft.study.trials import (
    ENDED,
    next_lines,
    numbers_of,
    printable,
    reason_of,
    retried,
    run_id,
    state_of,
)
from hft.system.commands import typed

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.trial import FrozenTrial

    from hft.study.study import Study

SERVED = ("log.txt", "metrics.json", "config.json")  # of a trial's folder
REPORT = "/report.html"
# A request decides a number and a name, and nothing that leads to another folder fits in.
_FILE = re.compile(r"/runs/(\d{1,7})/([a-z]+\.[a-z]+)")
# A report may come from a stranger: nothing in it may run or ask this server for anything.
POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_notes(study: Study) -> int:
    """Writes the missing notes of the study and of its ended trials, and returns how many; a note
    that is there may be the user's own, and stays.
    """
    from optuna_dashboard import get_note, save_note

    n_written = 0
    if not get_note(study.optuna):
        save_note(study.optuna, _study_note(study))
        n_written += 1
    trials = study.trials()
    repeated = retried(trials)
    for trial in trials:
        state = state_of(trial, repeated)
        if state not in (*ENDED, "retried"):
            continue
        opened = open_trial(study.optuna, trial.number)
        if not get_note(opened):
            save_note(opened, _trial_note(study, trial, state))
            n_written += 1
    return n_written


def _study_note(study: Study) -> str:
    about = f"{study.sweep.kind} by {' and '.join(study.sweep.objectives)}"
    commands = [typed("studies", word, f"study={study.name}") for word in ("best", "export")]
    return "\n\n".join(
        [
            f"**{study.name}**: {_escaped(about)}",
            _escaped(data_line(study)),
            f"[report]({REPORT})",
            _code(commands),
        ]
    )


def _trial_note(study: Study, trial: FrozenTrial, state: str) -> str:
    numbers = numbers_of(study, trial).items()
    lines = [f"- {_escaped(name)}: {value:.6g}" for name, value in numbers if value is not None]
    folder = study.trial_folder(trial.number)
    links = [
        f"[{name}](/runs/{trial.number}/{name})" for name in SERVED if (folder / name).is_file()
    ]
    parts = [
        f"**{run_id(study, trial.number)}**: {state}",
        _escaped(reason_of(trial)),
        "\n".join(lines),
        " · ".join(links) or "its run is on another machine",
        f"`{folder}`",
        _code(next_lines(study, trial)),
    ]
    return "\n\n".join(part for part in parts if part)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(printable(text)))


def _code(lines: Iterable[str]) -> str:
    """A block of code that none of its lines can end."""
    return "\n".join(["```", *(printable(line).replace("```", "'''") for line in lines), "```"])


def serve(study: Study, *, host: str, port: int) -> None:
    """Serves until the process ends."""
    with make_server(host, port, make_app(study), handler_class=_Quiet) as server:
        server.serve_forever()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of a request."""


def make_app(study: Study) -> WSGIApplication:
    """optuna-dashboard on the study's storage, with the files that its notes link."""
    import optuna_dashboard

    dashboard = optuna_dashboard.wsgi(study.address.open())

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        match = _FILE.fullmatch(path)
        if path == REPORT:
            return _send(study.folder / "report.html", "text/html", start_response)
        if match and match[2] in SERVED:
            return _send(study.trial_folder(int(match[1])) / match[2], "text/plain", start_response)
        return dashboard(environ, start_response)

    return answer


def _send(path: Path, kind: str, start_response: StartResponse) -> Iterable[bytes]:
    headers = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Security-Policy", POLICY),
        # Without it a browser may take a log that holds HTML for a page.
        ("X-Content-Type-Options", "nosniff"),
    ]
    if path.is_symlink() or not path.is_file():  # a link may lead out of the study
        start_response("404 Not Found", headers)
        return [f"{path.name} is not there\n".encode()]
    start_response("200 OK", headers)
    return [path.read_bytes()]
