"""Where a run is reviewed: W&B, CSV files, or nowhere.

In: the logger of a config, and a run's id, folder and config. Out: a Tracker that makes of what it is given what the
chosen logger does, inside the run's folder. Training and backtest of one run open a tracker with the same run id and
folder and so share one W&B run. To add a logger: a LoggerSpec with an `open` method here, a Tracker that keeps what it
is given, and a YAML.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hft.files import write_atomic
from hft.spec import Kind
from hft.tracker import Job, Tracker, file_name, png
from hft.tracker import TrackingError as TrackingError
from hft.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure


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
    project: str = Field(min_length=1, pattern=r"^[^/\\#?%:]+$", description="W&B project that the run belongs to")
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
