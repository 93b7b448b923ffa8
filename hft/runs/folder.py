"""A run on disk: what was asked, what came out, and how far it got.

In: plain configs, metrics, predictions. Out: a folder `<root>/<UTC time>-<4 hex>/`, a trial's
`<study>/<number>/`, of JSON, parquet and safetensors that another process reads back. Every file is
written beside its place, synced and renamed, so a kill leaves the old file or the new one. To keep
a further file in a run: a write and a read method on Run, going through `write_atomic`.

A folder may come from a stranger: it is data only, nothing in it is executed, and `read_config`
gives plain data that must pass `hft.spec.parse`. Paths in it are not to be followed: the caller
puts its own in their place.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import io
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from hft.schema import NET, PREDICTIONS, check, daily_columns
from hft.spec import UserError, fingerprint
from hft.system.files import is_locked, locked, writable, write_atomic
from hft.system.provenance import git_state, versions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TRIAL = re.compile(r"\d{4,7}")
MAX_JSON_BYTES = 16 * 2**20  # ours have kilobytes; a stranger's file must not fill the memory

_RETRAIN = "choose another run, or train it again"
State = Literal["new", "running", "done", "pruned", "failed", "interrupted"]


class RunError(UserError):
    """A run folder that cannot be found, read or written."""


@dataclass
class Work:
    """A run in work: how it is marked if it ends without an error."""

    ends_as: State = "done"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        """`20240102-030405-a1b2`, or of a sweep's trial `<study>/<number>`."""
        return (
            f"{self.folder.parent.name}/{self.folder.name}" if self.is_trial else self.folder.name
        )

    @property
    def is_trial(self) -> bool:
        return bool(TRIAL.fullmatch(self.folder.name))

    @property
    def tracked_id(self) -> str:
        """The id as a tracker takes it: W&B allows no slash in one."""
        return self.id.replace("/", "-")

    @property
    def state(self) -> State:
        """`interrupted` also for a run whose process is gone: only one that reached its end says
        `done` or `pruned`.
        """
        state = self._read_json("state.json").get("state")
        if state not in get_args(State):
            raise RunError(
                f"{self.folder / 'state.json'}: state must be one of {get_args(State)}, got {state!r}"
            )
        return "interrupted" if state == "running" and not is_locked(self._work_lock) else state

    def mark(self, state: State) -> None:
        started = self._read_json("state.json").get("started_ns")
        self._write_json(
            "state.json", {"state": state, "started_ns": started, "changed_ns": time.time_ns()}
        )

    @contextlib.contextmanager
    def working(self) -> Iterator[Work]:
        """Marks the run running, and at the end done (or as the block says), interrupted (by a
        signal: `exit_status`), or failed.

        A kernel lock tells others that this process is alive. Raises RunError where another one
        works on the run.
        """
        if is_locked(self._work_lock):
            raise RunError(
                f"run {self.id}: another process is working on it; wait for it, or choose another run"
            )
        with locked(self._work_lock):
            self.mark("running")
            work = Work()
            try:
                yield work
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt) or hasattr(error, "exit_status")
                self.mark("interrupted" if stopped else "failed")
                raise
            self.mark(work.ends_as)

    @property
    def _work_lock(self) -> Path:
        return self.folder / ".lock-working"

    def write_config(self, config: dict[str, Any], *, data_keys: dict[str, Any]) -> None:
        """The parsed config as plain data, the cache keys of the data it used, and the code and
        versions that ran.
        """
        self._write_json("config.json", {"config": config, "data_keys": data_keys} | what_runs())

    def read_config(self) -> dict[str, Any]:
        """The config as plain data, not parsed yet; its paths are the writer's and not to be
        followed.
        """
        return self.read_about()["config"]

    def read_about(self) -> dict[str, Any]:
        """config, data_keys, versions and git of the run."""
        about = self._read_json("config.json")
        for part in ("config", "data_keys", "versions", "git"):
            if not isinstance(about.get(part), dict):
                raise RunError(
                    f"{self.folder / 'config.json'}: must hold a mapping {part!r}; {_RETRAIN}"
                )
        return about

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Numbers by name; those that are not finite are kept as null."""
        self._write_json("metrics.json", _finite(metrics))

    def read_metrics(self) -> dict[str, Any]:
        return self._read_json("metrics.json")

    def write_predictions(self, predictions: pl.DataFrame, *, folder: Path | None = None) -> None:
        """In the run's folder, or in one below it."""
        path = (folder or self.folder) / "predictions.parquet"
        _write_frame(path, check(predictions, PREDICTIONS, where=str(path)))

    def read_predictions(self, *, folder: Path | None = None) -> pl.DataFrame:
        path = (folder or self.folder) / "predictions.parquet"
        return check(_read_frame(path), PREDICTIONS, where=str(path))

    def write_daily(self, daily: pl.DataFrame, *, folder: Path | None = None) -> None:
        """What each day of `select` earned, in the run's folder, or in one below it."""
        path = (folder or self.folder) / "daily.parquet"
        _write_frame(path, check(daily, _daily_contract(daily), where=str(path)))

    def read_daily(self, *, folder: Path | None = None) -> pl.DataFrame:
        path = (folder or self.folder) / "daily.parquet"
        daily = _read_frame(path)
        return check(daily, _daily_contract(daily), where=str(path))

    def fold_folder(self, fold: int, seed: int) -> Path:
        return self._make_folder(f"fold-{fold:d}", f"seed-{seed:d}")

    def backtest_folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise RunError(
                f"backtest name: must be letters, digits, '.', '_' or '-', at most 64, got {name!r}"
            )
        return self._make_folder("backtest", name)

    def write_unit(
        self,
        fold: int,
        seed: int,
        metrics: dict[str, Any],
        predictions: pl.DataFrame,
        daily: pl.DataFrame,
    ) -> None:
        """The outcome of one fold and seed; the metrics come last, and say that it is finished."""
        folder = self.fold_folder(fold, seed)
        self.write_predictions(predictions, folder=folder)
        self.write_daily(daily, folder=folder)
        self._write_json(f"{folder.relative_to(self.folder)}/metrics.json", _finite(metrics))

    def read_unit(self, fold: int, seed: int) -> tuple[dict[str, Any], pl.DataFrame] | None:
        """Metrics and predictions of a finished fold and seed, None where there are none yet."""
        folder = self.fold_folder(fold, seed)
        # Of an older version there may be no daily returns: the unit is scored again, from its
        # training's last state.
        if not all((folder / name).exists() for name in ("metrics.json", "daily.parquet")):
            return None
        metrics = self._read_json(f"{folder.relative_to(self.folder)}/metrics.json")
        return metrics, self.read_predictions(folder=folder)

    def write_strategy(self, fold: int, seed: int, fitted: dict[str, Any]) -> None:
        """What the strategy of one fold and seed learnt on `tune`."""
        self._write_json(
            f"{self.fold_folder(fold, seed).relative_to(self.folder)}/strategy.json", fitted
        )

    def read_strategy(self, fold: int, seed: int) -> dict[str, Any]:
        return self._read_json(f"fold-{fold:d}/seed-{seed:d}/strategy.json")

    def count_opening(self, period: str, what: dict[str, Any]) -> int:
        """Records that a locked period's rows are read now, and for what config; returns how often
        they have been.
        """
        name = f"{period}_openings.json"
        lock = self.folder / f".lock-{name}"
        with writable(lock), locked(lock):
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
            raise RunError(
                f"{self.folder / name}: must hold a list 'openings'; restore it, the count must not restart"
            )
        return openings

    def _make_folder(self, *parts: str) -> Path:
        folder = self.folder.joinpath(*parts)
        with writable(folder):
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
            raise RunError(
                f"{path}: missing, so {self.folder} is no complete run; {_RETRAIN}"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read ({_first_line(error)}); {_RETRAIN}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path}: must hold a mapping, got {type(content).__name__}; {_RETRAIN}")
        return content


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def what_runs() -> dict[str, Any]:
    """Versions of the libraries and state of the checkout, as this process found them: what it
    imported stays.
    """
    return {"versions": versions(), "git": git_state()}


def _daily_contract(daily: pl.DataFrame) -> dict[str, type[pl.DataType]]:
    return daily_columns(name.removeprefix(NET) for name in daily.columns if name.startswith(NET))


def _write_frame(path: Path, frame: pl.DataFrame) -> None:
    """With its hash beside it."""
    data = io.BytesIO()
    frame.write_parquet(data)
    write_atomic(path, data.getvalue())
    write_atomic(path.with_suffix(".sha256"), _sha256_line(data.getvalue(), path))


def _read_frame(path: Path) -> pl.DataFrame:
    try:
        data, digest = path.read_bytes(), path.with_suffix(".sha256").read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: missing or unreadable ({_first_line(error)}); {_RETRAIN}"
        ) from error
    # On a flipped byte polars may panic or end the process (seen: an allocation of 2e18 bytes): it
    # never sees one.
    if _sha256_line(data, path) != digest:
        raise RunError(f"{path}: does not match its hash in {path.stem}.sha256; {_RETRAIN}")
    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise RunError(f"{path}: cannot be read ({_first_line(error)}); {_RETRAIN}") from error


def _sha256_line(data: bytes, path: Path) -> bytes:
    """The line that `sha256sum --check` reads."""
    return f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()


def _first_line(error: BaseException) -> str:
    return (str(error) or repr(error)).splitlines()[0]
