"""The runs below one root, and the trials below a study: made, found, listed.

One run is hft/runs/folder.py; `hft runs` (hft/cli/runs.py) prints the list.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import secrets
import shutil
from pathlib import Path

from hft.runs.folder import NAME, Run, RunError
from hft.spec import did_you_mean
from hft.system.commands import typed
from hft.system.files import read_note, writable, write_json

# Other folders below the root, such as .local, are no runs.
RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
# Fewer than four digits may be typed: maker_v1/1 is the folder maker_v1/0001.
TRIAL_ID = re.compile(rf"(?P<study>{NAME.pattern})/(?P<number>\d{{1,7}})")


def create_run(root: Path) -> Run:
    """A new folder below `root`, of this process alone. Ids are UTC times, so they sort."""
    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            now = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
            folder = root / f"{now}-{secrets.token_hex(2)}"
            # The suffix can repeat within a second; mkdir says so to all but one.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    return Run(folder).begin()


def create_trial(study: Path, number: int, *, copy_of: Path | None = None) -> Run:
    """The folder of a study's trial, of this process alone. Raises RunError where there is one
    already: no number is used twice.

    With `copy_of`, another trial's folder, the run goes on from what that one left, and keeps its
    curves. State, log, locks and the place in W&B are made anew: the other trial keeps its own.
    """
    folder = study / f"{number:04d}"
    # Made under another name and renamed, so that a kill leaves no half trial and one of two
    # processes gets the number.
    partial = study / f".partial-{folder.name}-{secrets.token_hex(4)}"
    with writable(folder):
        study.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
            if copy_of is not None:
                _copy_progress(copy_of, partial)
            Run(partial).begin()
            _claim(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Run(folder)


def _copy_progress(source: Path, target: Path) -> None:
    # Named one by one: of wandb/ the summary goes along, but not the step and the files, which
    # belong to the other trial's W&B run.
    names = [
        "config.json",
        "metrics.csv",
        "summary.csv",
        "wandb/summary.json",
        *(p.name for p in source.glob("fold-*")),
    ]
    for name in names:
        path = source / name
        (target / name).parent.mkdir(exist_ok=True)
        if path.is_dir():
            # A file that a killed writer left in the middle begins with a dot
            # (hft/system/files.py).
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns(".*"))
        elif path.is_file():
            shutil.copyfile(path, target / name)


def _claim(partial: Path, folder: Path) -> None:
    """Takes a folder's name by a rename, which fails over a folder that holds anything."""
    # Asked first, because a rename would replace an empty folder without a word.
    if folder.exists():
        raise RunError(f"{folder}: is there already, and a trial's folder is never used twice")
    partial.rename(folder)


def remember_path(root: Path, run_id: str, path: str) -> None:
    """Notes where this machine has a run's data, beside the runs and not in one: a run that travels
    names no paths.
    """
    write_json(_path_note(root, run_id), {"data.path": path})


def remembered_path(root: Path, run_id: str) -> str | None:
    return read_note(_path_note(root, run_id), "data.path")


def _path_note(root: Path, run_id: str) -> Path:
    return root / ".local" / f"{run_id}.json"


def list_runs(root: Path) -> list[Run]:
    """The runs below `root`, newest first."""
    runs = [Run(p) for p in root.glob("*") if p.is_dir() and RUN_ID.fullmatch(p.name)]
    # Ids of one second differ by a random suffix only, so that the state's time decides there.
    return sorted(runs, key=lambda run: (run.id[:15], run.started_ns), reverse=True)


def find_run(root: Path, name: str, *, sweeps: Path | None = None) -> Run:
    """The run that `name` means: an id, a unique beginning of one, `latest`, the path of a run
    folder, or below `sweeps` the trial `<study>/<number>`.
    """
    if sweeps is not None and (trial := TRIAL_ID.fullmatch(name)):
        return _find_trial(sweeps, trial["study"], int(trial["number"]))
    runs = list_runs(root)
    ids = [run.id for run in runs]
    latest = (
        f"the latest in {root}: {', '.join(ids[:5])}" if ids else f"there are no runs in {root}"
    )
    if name == "latest":
        if not runs:
            raise RunError(f"no run 'latest': {latest}; train one first: {typed('train')}")
        return runs[0]
    if os.sep in name or name in (".", ".."):
        folder = Path(name).resolve()
        if not (folder / "config.json").is_file():
            raise RunError(f"{name!r}: must be a run folder with a config.json in it; {latest}")
        return Run(folder)
    # `name and`: every id begins with the empty text.
    found = [run for run in runs if name and run.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(r.id for r in found[:5])
        raise RunError(f"run {name!r}: {len(found)} runs begin so: {several}; give more of it")
    if name and sweeps is not None and (sweeps / name / "study.json").is_file():
        raise RunError(
            f"{name!r} is a study, not a run: give one of its trials, such as {name}/0000"
        )
    raise RunError(f"no run {name!r}{did_you_mean(name, ids)}; {latest}")


def _find_trial(sweeps: Path, study: str, number: int) -> Run:
    studies = sorted(p.name for p in sweeps.glob("*") if p.is_dir() and not p.name.startswith("."))
    if study not in studies:
        known = f"there: {', '.join(studies[:5])}" if studies else f"there are none in {sweeps}"
        raise RunError(f"no sweep {study!r} in {sweeps}{did_you_mean(study, studies)}; {known}")
    run = Run(sweeps / study / f"{number:04d}")
    if not run.folder.is_dir():
        trials = sorted(p.name for p in run.folder.parent.glob("*") if Run(p).is_trial)
        known = f"it has {trials[0]} to {trials[-1]}" if trials else "it has none yet"
        raise RunError(f"no trial {number:04d} in the folder of sweep {study!r}: {known}")
    return run
