"""Where a run is reviewed: W&B, CSV files, or nowhere, behind one small Tracker.

In: metrics per epoch, summary numbers, frames and figures. Out: what the chosen logger makes of them, inside the run's
folder. Training and backtest of one run open a tracker with the same run id and folder and so share one W&B run. To add
a logger: a LoggerSpec with an `open` method here, a Tracker that keeps what it is given, and a YAML.
"""

from __future__ import annotations

import csv
import io
import logging
import netrc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from hft.runs import write_atomic
from hft.spec import Kind, UserError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

INIT_TIMEOUT_S = 30  # with a key and no network W&B would try for 90

log = logging.getLogger(__name__)


class TrackingError(UserError):
    """A logger that cannot be used as configured."""


class Tracker:
    """Takes what a run has to show and keeps nothing: the tracker of `logger=none`, and the contract of the others.

    `epoch` may see one step twice (another fold, a resumed run): the later value of a metric holds.
    """

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        """Curves: one point per metric at epoch `step`."""

    def summary(self, values: dict[str, Any]) -> None:
        """Single results by name; the last value holds."""

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """A frame to look at."""

    def figure(self, name: str, figure: Figure | Path) -> None:
        """A matplotlib figure, or the path of a PNG."""

    def finish(self, exit_code: int = 0) -> None:
        """Nothing may be given afterwards."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(exit_code=0 if kind is None else 1)


@dataclass(frozen=True)
class Job:
    """What a tracker has to know of one job, training or backtest, on a run."""

    run_id: str
    folder: Path
    config: dict[str, Any]
    tags: tuple[str, ...]
    group: str
    name: str


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
        return WandbTracker(self, job)


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
    """The tracker of one job on a run. `config` is plain data without secrets; W&B keeps that of a job other than
    `train` below the job's name, so that it never overwrites the training's."""
    return spec.open(Job(run_id, Path(folder), config, tuple(tags), group, job))


class CsvTracker(Tracker):
    """metrics.csv (a row per epoch, a column per metric), summary.csv, tables/<name>.csv and figures/<name>.png.

    A file is rewritten whole and renamed at each call, so that a kill leaves the last state and a resumed run, or the
    backtest after the training, goes on from what is there.
    """

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
        write_atomic(self.folder / "tables" / f"{_file_name(name)}.csv", frame.write_csv().encode())

    def figure(self, name: str, figure: Figure | Path) -> None:
        write_atomic(self.folder / "figures" / f"{_file_name(name)}.png", _png(figure))

    def _write_rows(self, name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.folder / name, text.getvalue().encode())


class WandbTracker(Tracker):
    """One W&B run. Curves have the epoch for their axis; W&B's own step only counts what was given.

    Offline, a second process starts a second file of the same id and W&B would count from 0 again, which the server
    drops on sync: the count goes on from `<folder>/wandb/step`.
    """

    def __init__(self, spec: Wandb, job: Job) -> None:
        self.folder = job.folder / "wandb"
        self._make_folder()
        counter = self.folder / "step"
        self.step = int(counter.read_text()) if counter.exists() else 0
        training = job.name == "train"
        arguments = {
            "project": spec.project,
            "entity": spec.entity or None,
            "id": job.run_id,
            "name": job.run_id,
            "dir": str(job.folder),
            "config": job.config if training else {job.name: job.config},
            "tags": list(job.tags) or None,
            "group": job.group or None,
            "job_type": "train" if training else None,  # a backtest must not rename the training's
        }
        self.run = _start(spec.mode, arguments)
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        self._log({"epoch": step, **metrics})

    def summary(self, values: dict[str, Any]) -> None:
        self.run.summary.update(values)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        import wandb

        with self._staging_inside():
            self._log({name: wandb.Table(columns=frame.columns, data=frame.rows())})

    def figure(self, name: str, figure: Figure | Path) -> None:
        import wandb
        from PIL import Image

        with Image.open(io.BytesIO(_png(figure))) as image:
            self._log({name: wandb.Image(image)})

    def finish(self, exit_code: int = 0) -> None:
        self.run.finish(exit_code=exit_code)

    def _log(self, data: dict[str, Any]) -> None:
        self.run.log(data, step=self.step, commit=True)
        self.step += 1
        write_atomic(self.folder / "step", str(self.step).encode(), durable=False)

    def _make_folder(self) -> None:
        # W&B itself falls back to a temporary folder, silently, where it cannot write.
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(
                f"{self.folder}: cannot be written ({error}); take logger=none, or another folder: paths.runs=<folder>"
            ) from error

    @contextmanager
    def _staging_inside(self) -> Iterator[None]:
        """W&B stages the files of tables below the home folder; `wandb sync` needs them: keep them with the run."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(self.folder.resolve())
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]
            else:
                os.environ["WANDB_DATA_DIR"] = before


def _start(mode: str, arguments: dict[str, Any]) -> Any:
    """The W&B run; says why, in one line, when `auto` ends offline."""
    import wandb

    def init(mode: str) -> Any:
        quiet = {"silent": True, "console": "off", "x_disable_stats": True, "disable_git": True, "disable_code": True}
        settings = wandb.Settings(**quiet, init_timeout=INIT_TIMEOUT_S)
        return wandb.init(**arguments, mode=mode, resume="allow", reinit="create_new", settings=settings)

    if mode == "auto" and os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        mode = os.environ["WANDB_MODE"]
    if mode in ("offline", "disabled"):
        return init(mode)
    reason = "" if _has_key() else "there is no key"
    if not reason:
        try:
            return init("online")
        except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            raise TrackingError(f"logger=wandb: {error} Mend it, or take logger.mode=offline") from error
        except wandb.errors.CommError as error:
            reason = f"the server gives no answer ({str(error).splitlines()[0]})"
        wandb.teardown()  # the failed attempt keeps the run id in use
    if mode == "online":
        raise TrackingError(f"logger.mode=online: {reason}; log in with `wandb login`, or take logger.mode=offline")
    folder = arguments["dir"]
    log.warning("W&B: %s, so the run stays offline; upload it: wandb sync %s/wandb/offline-run-*", reason, folder)
    return init("offline")


def _has_key() -> bool:
    """Whether W&B will find credentials without asking: in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    paths = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for path in paths:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(os.path.expanduser(path)).authenticators(host):
                return True
    return False


def _png(figure: Figure | Path) -> bytes:
    if isinstance(figure, Path):
        return figure.read_bytes()
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _file_name(name: str) -> str:
    """`select/confusion` as the name of a file."""
    return "".join(c if c.isalnum() or c in "-_.@" else "-" for c in name).lstrip(".")


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value != ""} for row in rows]
