"""A run on disk: what was asked, what came out, and how far it got.

In: plain configs, metrics, predictions. Out: a folder `<root>/<UTC time>-<4 hex>/` of JSON, parquet and safetensors
that another process reads back. Every file is written beside its place, synced and renamed, so a kill leaves the old
file or the new one. To keep a further file in a run: a write and a read method on Run, going through `write_atomic`.

A folder may come from a stranger: it is data only, nothing in it is executed, and `read_config` gives plain data that
must pass `hft.spec.parse`. Paths in it are not to be followed: the caller puts its own in their place.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from hft.cache import locked
from hft.provenance import git_state, versions
from hft.schema import PREDICTIONS, check
from hft.spec import UserError, did_you_mean, fingerprint

RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_JSON_BYTES = 16 * 2**20  # ours have kilobytes; a stranger's file must not fill the memory

_RETRAIN = "choose another run, or train it again"
State = Literal["running", "done", "failed"]


class RunError(UserError):
    """A run folder that cannot be found, read or written."""


@dataclass(frozen=True)
class Run:
    """One run's folder. As a context manager it is marked done at the end, or failed when an exception leaves it."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        """`running` also for a run that was killed: only a run that reached its end says `done`."""
        state = self._read_json("state.json").get("state")
        if state not in get_args(State):
            raise RunError(f"{self.folder / 'state.json'}: state must be one of {get_args(State)}, got {state!r}")
        return state

    def mark(self, state: State) -> None:
        started = self._read_json("state.json").get("started_ns")
        self._write_json("state.json", {"state": state, "started_ns": started, "changed_ns": time.time_ns()})

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.mark("done" if kind is None else "failed")

    def write_config(self, config: dict[str, Any], *, data_keys: dict[str, Any]) -> None:
        """The parsed config as plain data, the cache keys of the data it used, and the code and versions that ran."""
        about = {"config": config, "data_keys": data_keys, "versions": versions(), "git": git_state()}
        self._write_json("config.json", about)

    def read_config(self) -> dict[str, Any]:
        """The config as plain data, not parsed yet; its paths are the writer's and not to be followed."""
        return self.read_about()["config"]

    def read_about(self) -> dict[str, Any]:
        """config, data_keys, versions and git of the run."""
        about = self._read_json("config.json")
        for part in ("config", "data_keys", "versions", "git"):
            if not isinstance(about.get(part), dict):
                raise RunError(f"{self.folder / 'config.json'}: must hold a mapping {part!r}; {_RETRAIN}")
        return about

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Numbers by name; those that are not finite are kept as null."""
        self._write_json("metrics.json", _finite(metrics))

    def read_metrics(self) -> dict[str, Any]:
        return self._read_json("metrics.json")

    def write_predictions(self, predictions: pl.DataFrame) -> None:
        path = self.folder / "predictions.parquet"
        data = io.BytesIO()
        check(predictions, PREDICTIONS, where=str(path)).write_parquet(data)
        write_atomic(path, data.getvalue())
        write_atomic(path.with_suffix(".sha256"), _sha256_line(data.getvalue(), path))

    def read_predictions(self) -> pl.DataFrame:
        path = self.folder / "predictions.parquet"
        try:
            data, digest = path.read_bytes(), path.with_suffix(".sha256").read_bytes()
        except OSError as error:
            raise RunError(f"{path}: missing or unreadable ({_first_line(error)}); {_RETRAIN}") from error
        # On a flipped byte polars may panic or end the process (seen: an allocation of 2e18 bytes): it never sees one.
        if _sha256_line(data, path) != digest:
            raise RunError(f"{path}: does not match its hash in {path.stem}.sha256; {_RETRAIN}")
        try:
            frame = pl.read_parquet(io.BytesIO(data))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise RunError(f"{path}: cannot be read ({_first_line(error)}); {_RETRAIN}") from error
        return check(frame, PREDICTIONS, where=str(path))

    def fold_folder(self, fold: int, seed: int) -> Path:
        return self._make_folder(f"fold-{fold:d}", f"seed-{seed:d}")

    def backtest_folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise RunError(f"backtest name: must be letters, digits, '.', '_' or '-', at most 64, got {name!r}")
        return self._make_folder("backtest", name)

    def write_strategy(self, fold: int, seed: int, fitted: dict[str, Any]) -> None:
        """What the strategy of one fold and seed learnt on `tune`."""
        self._write_json(f"{self.fold_folder(fold, seed).relative_to(self.folder)}/strategy.json", fitted)

    def read_strategy(self, fold: int, seed: int) -> dict[str, Any]:
        return self._read_json(f"fold-{fold:d}/seed-{seed:d}/strategy.json")

    def count_opening(self, period: str, what: dict[str, Any]) -> int:
        """Records that a locked period's rows are read now, and for what config; returns how often they have been."""
        name = f"{period}_openings.json"
        lock = self.folder / f".lock-{name}"
        with _writable(lock), locked(lock):
            openings = self.read_openings(period)
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            openings.append({"time": now, "config_sha256": fingerprint(what)})
            self._write_json(name, {"openings": openings})
        return len(openings)

    def read_openings(self, period: str) -> list[dict[str, Any]]:
        name = f"{period}_openings.json"
        if not (self.folder / name).exists():
            return []
        openings = self._read_json(name).get("openings")
        if not isinstance(openings, list):
            raise RunError(f"{self.folder / name}: must hold a list 'openings'; restore it, the count must not restart")
        return openings

    def _make_folder(self, *parts: str) -> Path:
        folder = self.folder.joinpath(*parts)
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False)
        write_atomic(self.folder / name, text.encode() + b"\n")

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ValueError(f"must have at most {MAX_JSON_BYTES} bytes")
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path}: missing, so {self.folder} is no complete run; {_RETRAIN}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read ({_first_line(error)}); {_RETRAIN}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path}: must hold a mapping, got {type(content).__name__}; {_RETRAIN}")
        return content


def create_run(root: Path) -> Run:
    """A new folder below `root`, of this process alone, marked running. Ids sort by time: they are in UTC."""
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            now = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
            folder = root / f"{now}-{secrets.token_hex(2)}"
            # The suffix can repeat within a second; mkdir says so to all but one.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    run = Run(folder)
    run._write_json("state.json", {"state": "running", "started_ns": time.time_ns()})
    return run


def remember_path(root: Path, run_id: str, path: str) -> None:
    """Keeps beside the runs, not in one, where this machine has a run's data: a run that travels names no paths."""
    write_atomic(_path_note(root, run_id), json.dumps({"data.path": path}).encode())


def remembered_path(root: Path, run_id: str) -> str | None:
    try:
        return str(json.loads(_path_note(root, run_id).read_text())["data.path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path_note(root: Path, run_id: str) -> Path:
    return root / ".local" / f"{run_id}.json"


def list_runs(root: Path) -> list[Run]:
    """The runs below `root`, newest first."""
    runs = [Run(p) for p in root.glob("*") if p.is_dir() and RUN_ID.fullmatch(p.name)]
    return sorted(runs, key=lambda run: (run.id[:15], _started_ns(run)), reverse=True)


def find_run(root: Path, name: str) -> Run:
    """The run that `name` means: an id, a unique beginning of one, `latest`, or the path of a run folder."""
    runs = list_runs(root)
    ids = [run.id for run in runs]
    latest = f"the latest in {root}: {', '.join(ids[:5])}" if ids else f"there are no runs in {root}"
    if name == "latest":
        if not runs:
            raise RunError(f"no run 'latest': {latest}; train one first: python train.py")
        return runs[0]
    if os.sep in name or name in (".", ".."):
        folder = Path(name).resolve()
        if not (folder / "config.json").is_file():
            raise RunError(f"{name!r}: must be a run folder with a config.json in it; {latest}")
        return Run(folder)
    found = [run for run in runs if name and run.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(
            f"run {name!r}: {len(found)} runs begin so: {', '.join(r.id for r in found[:5])}; give more of it"
        )
    raise RunError(f"no run {name!r}{did_you_mean(name, ids)}; {latest}")


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Puts `data` at `path` whole or not at all, on the disk before it returns when `durable`."""
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            with partial.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({_first_line(error)}); "
            "make room or make it writable, or choose another folder: paths.runs=<folder>"
        ) from error


def _started_ns(run: Run) -> int:
    """For the order within a second; a folder without a readable state is the oldest of its second."""
    try:
        started = run._read_json("state.json").get("started_ns")
    except RunError:
        return 0
    return started if isinstance(started, int) else 0


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sha256_line(data: bytes, path: Path) -> bytes:
    """The line that `sha256sum --check` reads."""
    return f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()


def _first_line(error: BaseException) -> str:
    return (str(error) or repr(error)).splitlines()[0]
