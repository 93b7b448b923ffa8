"""Curves, summary and tables as CSV files, figures as PNG, inside the run's folder."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hft.system.files import write_atomic
from hft.tracking.logger import LoggerSpec
from hft.tracking.tracker import Job, Tracker, file_name, png

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure


class Csv(LoggerSpec):
    kind: Literal["csv"]

    def open(self, job: Job) -> Tracker:
        return CsvTracker(job)


class CsvTracker(Tracker):
    """metrics.csv (a row per epoch, a column per metric), summary.csv, tables/<name>.csv and
    figures/<name>.png.

    Each call rewrites its file whole. A kill leaves the last state; a resumed run, or the backtest
    after the training, goes on from it.
    """

    keeps: ClassVar[bool] = True

    def __init__(self, job: Job) -> None:
        self.folder = folder = job.folder
        # Read back, because each write is of the whole file: a resumed run would otherwise drop the
        # epochs before it.
        read = _read_rows(folder / "metrics.csv")
        self.rows: dict[int, dict[str, Any]] = {int(row.pop("epoch")): {**row} for row in read}
        self.values = {row["name"]: row["value"] for row in _read_rows(folder / "summary.csv")}

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        self.rows.setdefault(step, {}).update(metrics)
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        rows = [{"epoch": step} | row for step, row in sorted(self.rows.items())]
        self._write_rows("metrics.csv", ["epoch", *columns], rows)

    def summary(self, values: dict[str, Any]) -> None:
        self.values |= values
        self._write_rows(
            "summary.csv",
            ["name", "value"],
            [{"name": n, "value": v} for n, v in self.values.items()],
        )

    def table(self, name: str, frame: pl.DataFrame) -> None:
        write_atomic(self.folder / "tables" / f"{file_name(name)}.csv", frame.write_csv().encode())

    def figure(self, name: str, figure: Figure | Path) -> None:
        write_atomic(self.folder / "figures" / f"{file_name(name)}.png", png(figure))

    def _write_rows(self, name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        # Not every metric comes with every epoch (`money_every`), so that rows have empty cells.
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.folder / name, text.getvalue().encode())


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # An empty cell was never logged and must not become a value when a run goes on.
    return [{name: value for name, value in row.items() if value != ""} for row in rows]
