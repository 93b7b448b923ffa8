"""Where a run is reviewed: W&B, CSV files, or nowhere.

In: the logger of a config, and a run's id, folder and config. Out: a Tracker that makes of what it is given what the
chosen logger does, inside the run's folder. Training and backtest of one run open a tracker with the same run id and
folder and so share one W&B run. To add a logger: a LoggerSpec with an `open` method here, a Tracker that keeps what it
is given, and a YAML.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hft.files import write_atomic
from hft.spec import Kind, UserError, did_you_mean
from hft.tracker import Job, Tracker, file_name, png
from hft.tracker import TrackingError as TrackingError
from hft.wandb_tracker import WandbTracker
from hft.workspace import build_workspace, check_online, read_shown, save, to_json

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

NAME = r"[^/\\#?%:]+"  # of a project, as W&B takes it
USAGE = """\
usage: python -m hft.tracking workspace project=<name> entity=<team> [name=<title>] [swept=<path>,...] [dry=true]

Saves a new W&B workspace with panels for grids, studies, training and backtests, and prints its address.
  swept=optim.lr,bars  config paths of a search space that was typed; those in conf/sweep have their panels already
  dry=true             prints the workspace as JSON and saves nothing; needs no key
"""


class LoggerSpec(Kind):
    def open(self, job: Job) -> Tracker:
        raise NotImplementedError


class NoLogger(LoggerSpec):
    kind: Literal["none"]

    def open(self, job: Job) -> Tracker:
        return Tracker()


class Csv(LoggerSpec):
    kind: Literal["csv"]

    def open(self, job: Job) -> Tracker:
        return CsvTracker(job)


class Wandb(LoggerSpec):
    kind: Literal["wandb"]
    project: str = Field(min_length=1, pattern=f"^{NAME}$", description="W&B project that the run belongs to")
    entity: str = Field(description="W&B user or team; empty for the default of the key")
    mode: Literal["auto", "online", "offline"] = Field(
        description="auto: WANDB_MODE where set, else online where there is a key and the server answers, else offline"
    )

    def open(self, job: Job) -> Tracker:
        return WandbTracker(job, project=self.project, entity=self.entity, mode=self.mode)


def open_tracker(
    spec: LoggerSpec,
    run_id: str,
    folder: Path,
    *,
    config: dict[str, Any],
    tags: Sequence[str] = (),
    group: str = "",
    job: str = "train",
) -> Tracker:
    """The tracker of one job on a run. `config` is plain data without secrets; W&B keeps it, with the code's
    commit and versions as `code`; that of a job other than `train` stands below the job's name, so that it never
    overwrites the training's.
    """
    return spec.open(Job(run_id, Path(folder), config, tuple(tags), group, job))


class CsvTracker(Tracker):
    """metrics.csv (a row per epoch, a column per metric), summary.csv, tables/<name>.csv and figures/<name>.png.

    A file is rewritten whole and renamed at each call, so that a kill leaves the last state and a resumed run, or the
    backtest after the training, goes on from what is there.
    """

    keeps: ClassVar[bool] = True

    def __init__(self, job: Job) -> None:
        self.folder = folder = job.folder
        self.rows = {int(row.pop("epoch")): row for row in _read_rows(folder / "metrics.csv")}
        self.values = {row["name"]: row["value"] for row in _read_rows(folder / "summary.csv")}

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        self.rows.setdefault(step, {}).update(metrics)
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        rows = [{"epoch": step} | row for step, row in sorted(self.rows.items())]
        self._write_rows("metrics.csv", ["epoch", *columns], rows)

    def summary(self, values: dict[str, Any]) -> None:
        self.values |= values
        self._write_rows("summary.csv", ["name", "value"], [{"name": n, "value": v} for n, v in self.values.items()])

    def table(self, name: str, frame: pl.DataFrame) -> None:
        write_atomic(self.folder / "tables" / f"{file_name(name)}.csv", frame.write_csv().encode())

    def figure(self, name: str, figure: Figure | Path) -> None:
        write_atomic(self.folder / "figures" / f"{file_name(name)}.png", png(figure))

    def _write_rows(self, name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.folder / name, text.getvalue().encode())


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value != ""} for row in rows]


def main(arguments: list[str]) -> int:
    """`python -m hft.tracking workspace ...`: the W&B workspace of a project, see hft/workspace.py."""
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0 if arguments else 2
    try:
        if arguments[0] != "workspace":
            raise TrackingError(f"no such command {arguments[0]!r}{did_you_mean(arguments[0], ['workspace'])}\n{USAGE}")
        given = _parse(arguments[1:])
        dry = given["dry"] == "true"
        if not dry:
            check_online()
        shown = read_shown(swept=tuple(filter(None, given["swept"].split(","))))
        workspace = build_workspace(shown, project=given["project"], entity=given["entity"], name=given["name"])
        sys.stdout.write(to_json(workspace) if dry else f"{save(workspace)}\n")
        return 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parse(arguments: list[str]) -> dict[str, str]:
    given = {"project": "", "entity": "", "name": "Grids, studies and backtests", "swept": "", "dry": "false"}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in given:
            hint = did_you_mean(name, list(given)) or f", the arguments: {', '.join(given)}"
            raise TrackingError(f"workspace: no such argument {name!r}{hint}")
        given[name] = value
    for name in ("project", "entity"):
        if not re.fullmatch(NAME, given[name]):
            what = f"without / \\ # ? % :, got {given[name]!r}" if given[name] else f"and is missing: {name}=<name>"
            raise TrackingError(f"workspace: {name} must be a name {what}")
    if given["dry"] not in ("true", "false"):
        raise TrackingError(f"workspace: dry must be true or false, got {given['dry']!r}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
