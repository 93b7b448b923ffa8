"""What a study leaves in its folder: results.parquet, points.parquet of a grid over seeds, best/
and report.html; and the same in W&B.

In: a Study at any time, running or ended. Out: files that are there whole or not at all, written
again by each call. To add a part of the report: hft/study/report.py.
"""

from __future__ import annotations

import ctypes
import io
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hft.study.figures import draw_all
from hft.study.points import points_frame
from hft.study.report import make_report
from hft.study.trials import next_lines, numbers_of, run_id, trials_frame
from hft.system.files import locked, writable, write_atomic
from hft.tracking.logger import LoggerSpec, open_tracker

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

# What scoring a run needs, without what only resuming it does.
KEPT = (
    "config.json",
    "state.json",
    "metrics.json",
    "fold-*/seed-*/weights.safetensors",
    "fold-*/seed-*/strategy.json",
)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux


def export(study: Study) -> list[Path]:
    """Writes all of it again and returns the paths; without a best trial there is no best/, without
    a grid over seeds no points.parquet.
    """
    # Drivers that end together export together. Without the lock one would remove the half-written
    # best/ of the other.
    lock = study.folder / ".lock-export"
    with writable(lock), locked(lock):
        written = [_write_frame(study.folder / "results.parquet", trials_frame(study))]
        points = points_frame(study)
        if not points.is_empty():
            written.append(_write_frame(study.folder / "points.parquet", points))
        if best := write_best(study):
            written.append(best)
        report = study.folder / "report.html"
        write_atomic(report, make_report(study, draw_all(study)).encode())
    return [*written, report]


def _write_frame(path: Path, frame: pl.DataFrame) -> Path:
    data = io.BytesIO()
    frame.write_parquet(data)
    write_atomic(path, data.getvalue())
    return path


def write_best(study: Study) -> Path | None:
    """Puts what scores the best trial's run, and the lines to paste, into best/; where several are
    best, into best/<trial>/.
    """
    target, best = study.folder / "best", study.best()
    # A call that was killed leaves its folder behind.
    for left in study.folder.glob(".best-*"):
        shutil.rmtree(left)
    fresh = study.folder / f".best-{secrets.token_hex(4)}"
    with writable(target):
        for trial in best:
            name = study.trial_folder(trial.number).name
            _copy_run(study, trial, fresh / name if len(best) > 1 else fresh)
        if best:
            _put(fresh, target)
        elif target.exists():
            # Renamed before it is removed, so that nobody finds half of a best/.
            target.rename(fresh)
        shutil.rmtree(fresh, ignore_errors=True)
    return target if best else None


def _copy_run(study: Study, trial: FrozenTrial, folder: Path) -> None:
    source = study.trial_folder(trial.number)
    folder.mkdir(parents=True)
    for path in (p for pattern in KEPT for p in source.glob(pattern)):
        place = folder / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    lines = next_lines(study, trial)
    if not source.is_dir():
        where = "is not in this folder: another machine has it"
        lines.insert(0, f"# the run of trial {trial.number} {where}")
    write_atomic(folder / "next.txt", "\n".join(lines).encode() + b"\n")


def _put(fresh: Path, target: Path) -> None:
    """Puts `fresh` at `target` in one step, and what was there at `fresh`."""
    if not target.exists():
        fresh.rename(target)
        return
    # Python has no call that exchanges two folders, and a rename fails over a folder with files.
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
        failed = exchange(
            AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE
        )
    except AttributeError:
        failed = True
    if failed:  # this system or file system has no such call: two steps
        old = fresh.with_name(f"{fresh.name}-old")
        target.rename(old)
        fresh.rename(target)
        old.rename(fresh)


def log_study(study: Study, logger: LoggerSpec, *, tags: Sequence[str] = ()) -> None:
    """Logs the study as one W&B run in the group of its trials: counts, best, tables, figures and
    the report.
    """
    about = {"sweep": study.sweep.plain(), "space": study.space.plain()}
    with open_tracker(
        logger, study.name, study.folder, config=about, tags=tags, group=study.name, job="study"
    ) as tracker:
        if not tracker.keeps:
            return
        tracker.summary(_summary(study))
        frame = trials_frame(study).with_columns(pl.col("started").dt.to_string())
        tracker.table("sweep/trials", frame)
        points = points_frame(study)
        if not points.is_empty():
            tracker.table("sweep/points", points)
        figures = draw_all(study)
        for title, figure in figures.items():
            if not isinstance(figure, str):
                tracker.figure(f"sweep/{title.lower().replace(' ', '_')}", figure)
        tracker.page("sweep/report", make_report(study, figures))


def _summary(study: Study) -> dict[str, Any]:
    counts, best = study.counts(), study.best()
    names = ("complete", "pruned", "failed", "retried")
    found = {f"sweep/{name}": getattr(counts, name) for name in names}
    if best:
        found |= {
            "sweep/best": run_id(study, best[0].number),
            "sweep/next": next_lines(study, best[0])[0],
        }
        numbers = numbers_of(study, best[0])
        found |= {f"best/{name}": v for name, v in numbers.items() if v is not None}
        found |= {f"best/{path}": value for path, value in best[0].params.items()}
    return found
