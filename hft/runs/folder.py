"""A run on disk: what was asked, what came out, and how far it got.

In: plain configs, metrics, predictions. Out: a folder `<root>/<UTC time>-<4 hex>/`, a trial's
`<study>/<number>/`, of JSON, parquet and safetensors that another process reads back. Every file is
written beside its place, synced and renamed, so a kill leaves the old file or the new one. To keep
a further file in a run: a write and a read method on Run, which use hft/system/files.py.

A folder may come from a stranger: it is data only, nothing in it is executed, and `read_config`
gives plain data that must pass `hft.spec.parse`. Paths in it are not to be followed: the caller
puts its own in their place.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from hft.report.scorecard import Scorecard
from hft.schema import LEDGER, NET, PREDICTIONS, check, daily_columns
from hft.spec import SpecError, UserError, fingerprint, parse
from hft.system.files import is_locked, locked, read_json, writable, write_json
from hft.system.parquet import read_frame, write_frame
from hft.system.provenance import git_state, versions
from hft.system.version import FIRST_VERSION

# One level of a path: without a slash or a leading dot no name leads out of its folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# At least four digits, as hft/runs/registry.py writes them. A run's own id has dashes.
TRIAL = re.compile(r"\d{4,7}")

_RETRAIN = "choose another run, or train it again"
_RESCORE = "score the run again"
State = Literal["new", "running", "done", "pruned", "failed", "interrupted"]


class RunError(UserError):
    """A run folder that cannot be found, read or written."""


@dataclass
class Work:
    """How a run in work is marked if it ends without an error."""

    ends_as: State = "done"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        """`20240102-030405-a1b2`, or of a sweep's trial `<study>/<number>`."""
        study = f"{self.folder.parent.name}/" if self.is_trial else ""
        return study + self.folder.name

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
        known: tuple[State, ...] = get_args(State)
        stored = self._read_json("state.json").get("state")
        # Written by mark(); a stranger may have written anything.
        state = next((state for state in known if state == stored), None)
        if state is None:
            path = self.folder / "state.json"
            raise RunError(f"{path}: state must be one of {known}, got {stored!r}")
        # A kill -9 leaves `running` in the file, but the kernel frees the lock of a dead process.
        return "interrupted" if state == "running" and not is_locked(self._work_lock) else state

    @property
    def started_ns(self) -> int:
        """0 where the state cannot be read."""
        try:
            started = self._read_json("state.json").get("started_ns")
        # `list_runs` sorts by this: one damaged folder must not end the list.
        except RunError:
            return 0
        return started if isinstance(started, int) else 0

    def begin(self) -> Run:
        """Marks a folder that was just made as new."""
        self._write_json("state.json", {"state": "new", "started_ns": time.time_ns()})
        return self

    def mark(self, state: State) -> None:
        started = self._read_json("state.json").get("started_ns")
        self._write_json(
            "state.json", {"state": state, "started_ns": started, "changed_ns": time.time_ns()}
        )

    @contextlib.contextmanager
    def working(self) -> Iterator[Work]:
        """Marks the run running, and at the end as the block says (done), interrupted (after Ctrl-C
        or an error with an `exit_status`, that of a signal), or failed.

        A kernel lock tells others that this process is alive. Raises RunError where another one
        works on the run.
        """
        # Asked before it is taken: `locked` would wait until the other process has ended.
        if is_locked(self._work_lock):
            raise RunError(
                f"run {self.id}: another process is working on it; wait for it, or choose another"
            )
        with locked(self._work_lock):
            self.mark("running")
            work = Work()
            try:
                yield work
            # A Ctrl-C is no Exception, and the run must not be left marked as running.
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt) or hasattr(error, "exit_status")
                self.mark("interrupted" if stopped else "failed")
                raise
            self.mark(work.ends_as)

    @property
    def _work_lock(self) -> Path:
        return self.folder / ".lock-working"

    def write_config(
        self,
        config: dict[str, Any],
        *,
        data_keys: dict[str, Any],
        overrides: Sequence[str] = (),
    ) -> None:
        """The parsed config as plain data, the keys of what it was trained on, what was typed, and
        the code and versions that ran.
        """
        about = {"config": config, "data_keys": data_keys, "overrides": list(overrides)}
        self._write_json("config.json", about | what_runs())

    def read_config(self) -> dict[str, Any]:
        """As plain data, not parsed yet; its paths are the writer's and not to be followed."""
        return self.read_about()["config"]

    def read_overrides(self) -> list[str]:
        """What was typed, to be shown and not obeyed; none in a run of before 0.2.0."""
        overrides = self.read_about().get("overrides")
        # They are only shown, so that whatever a stranger wrote there may become text.
        return [str(o) for o in overrides] if isinstance(overrides, list) else []

    def read_version(self) -> str:
        """The version of hft that made the run."""
        return str(self.read_about()["versions"].get("hft", FIRST_VERSION))

    def read_about(self) -> dict[str, Any]:
        """config, data_keys, versions and git of the run, and the overrides if it has them."""
        about = self._read_json("config.json")
        # A stranger's file may lack any of them, and callers index them without asking.
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
        write_frame(path, check(predictions, PREDICTIONS, where=str(path)))

    def read_predictions(self, *, folder: Path | None = None) -> pl.DataFrame:
        """Of a run of before 0.2.0, which kept no true class, every `y` is null."""
        path = (folder or self.folder) / "predictions.parquet"
        frame = self._read_frame(path)
        if "y" not in frame.columns:
            frame = frame.with_columns(y=pl.lit(None, PREDICTIONS["y"]))
        return check(frame, PREDICTIONS, where=str(path))

    def write_daily(self, daily: pl.DataFrame, *, folder: Path | None = None) -> None:
        """What each day of `select` earned, in the run's folder, or in one below it."""
        path = (folder or self.folder) / "daily.parquet"
        write_frame(path, check(daily, _daily_contract(daily), where=str(path)))

    def read_daily(self, *, folder: Path | None = None) -> pl.DataFrame:
        path = (folder or self.folder) / "daily.parquet"
        daily = self._read_frame(path)
        return check(daily, _daily_contract(daily), where=str(path))

    def fold_folder(self, fold: int, seed: int) -> Path:
        return self._make_folder(f"fold-{fold:d}", f"seed-{seed:d}")

    def backtest_folder(self, name: str) -> Path:
        return self._make_folder("backtest", _checked(name))

    def read_ledger(self, name: str) -> pl.DataFrame:
        """The trades of the backtest `name`, as hft/report/scorecard.py saved them."""
        path = self.folder / "backtest" / _checked(name) / "ledger.parquet"
        return check(self._read_frame(path, remedy=_RESCORE), LEDGER, where=str(path))

    def read_scorecard(self, name: str) -> Scorecard:
        path = self.folder / "backtest" / _checked(name) / "scorecard.json"
        missing = f"so this run has no backtest {name!r}"
        content = read_json(path, error=RunError, missing=missing, remedy=_RESCORE)
        try:
            return parse(Scorecard, content, stored=True)
        except SpecError as error:
            raise RunError(f"{path}: not a scorecard of ours; {_RESCORE}\n{error}") from None

    def write_unit(
        self,
        fold: int,
        seed: int,
        metrics: dict[str, Any],
        predictions: pl.DataFrame,
        daily: pl.DataFrame,
    ) -> None:
        """The outcome of one fold and seed. The metrics come last: their file says finished."""
        folder = self.fold_folder(fold, seed)
        self.write_predictions(predictions, folder=folder)
        self.write_daily(daily, folder=folder)
        self._write_json(_of_unit(fold, seed, "metrics.json"), _finite(metrics))

    def read_unit(self, fold: int, seed: int) -> tuple[dict[str, Any], pl.DataFrame] | None:
        """Metrics and predictions of a finished fold and seed, None where there are none yet."""
        name = _of_unit(fold, seed, "metrics.json")
        if not (self.folder / name).exists():
            return None
        return self._read_json(name), self.read_predictions(folder=self.fold_folder(fold, seed))

    def write_strategy(self, fold: int, seed: int, fitted: dict[str, Any]) -> None:
        """What the strategy of one fold and seed learnt on `tune`."""
        self._write_json(_of_unit(fold, seed, "strategy.json"), fitted)

    def read_strategy(self, fold: int, seed: int) -> dict[str, Any]:
        return self._read_json(_of_unit(fold, seed, "strategy.json"))

    def count_opening(self, period: str, what: dict[str, Any]) -> int:
        """Records that the rows of a period are read now, and for what config. Returns how often
        they have been read.
        """
        name = f"{period}_openings.json"
        lock = self.folder / f".lock-{name}"
        # Two backtests at once would otherwise both read n and both write n + 1.
        with writable(lock), locked(lock):
            openings = self.read_openings(period)
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            # Time and hash of the config: docs/definitions.md 4.7.
            openings.append({"time": now, "config_sha256": fingerprint(what)})
            self._write_json(name, {"openings": openings})
        return len(openings)

    def read_openings(self, period: str) -> list[dict[str, Any]]:
        name = f"{period}_openings.json"
        if not (self.folder / name).exists():
            return []
        openings = self._read_json(name).get("openings")
        # Never begun anew: a damaged count would hide that the rows have been looked at.
        if not isinstance(openings, list):
            raise RunError(
                f"{self.folder / name}: must hold a list 'openings'; restore it, so that the count "
                "goes on"
            )
        return openings

    def _make_folder(self, *parts: str) -> Path:
        folder = self.folder.joinpath(*parts)
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.folder / name, content)

    def _read_json(self, name: str) -> dict[str, Any]:
        missing = f"so {self.folder} is no complete run"
        return read_json(self.folder / name, error=RunError, missing=missing, remedy=_RETRAIN)

    def _read_frame(self, path: Path, *, remedy: str = _RETRAIN) -> pl.DataFrame:
        return read_frame(path, error=RunError, remedy=remedy)


def _of_unit(fold: int, seed: int, name: str) -> str:
    return f"fold-{fold:d}/seed-{seed:d}/{name}"


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise RunError(
            f"backtest name: must be letters, digits, '.', '_' or '-', at most 64, got {name!r}"
        )
    return name


# JSON has no NaN, and `write_json` refuses one. Readers get null for "the rows carry no number".
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


# Fee schedules differ from run to run, so that a file's own columns name them; all the rest of the
# contract is checked.
def _daily_contract(daily: pl.DataFrame) -> dict[str, type[pl.DataType]]:
    return daily_columns(name.removeprefix(NET) for name in daily.columns if name.startswith(NET))
