"""W&B in one place: a Job in, one W&B run out, online or as files to sync later.

Several processes may work on one run, one after the other. Offline, each of them starts a file of
its own, in which W&B would count steps from 0 and begin its summary anew; `<folder>/wandb/step` and
`summary.json` carry both on. To show something new: a method on Tracker, and its W&B form here.

Group and job type tell runs apart: `train` and `folds` in the experiment's group, `trial` and
`study` in the study's. A backtest has no run of its own: its numbers stand beside those of its
training, so that one table sorts both, and it adds the tag `backtest=<name>`.
"""

from __future__ import annotations

import io
import json
import logging
import math
import netrc
import operator
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from hft.metrics import SHOWN, find
from hft.system.files import write_atomic
from hft.system.provenance import git_state, versions
from hft.tracking.logger import LoggerSpec
from hft.tracking.tracker import (
    Job,
    Tracker,
    TrackingError,
    best_of,
    file_name,
    png,
    title_of,
    words_of,
)
from hft.tracking.wandb_internals import quiet_settings

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

PROJECT = r"[^/\\#?%:]+"  # a project's name, as W&B takes it
INIT_TIMEOUT_S = 30  # with a key and no network W&B would try for 90
FLUSH_S = 1.0  # what a kill -9 can cost of the curves; W&B itself would keep 15 s of them in memory

log = logging.getLogger(__name__)


class Wandb(LoggerSpec):
    kind: Literal["wandb"]
    project: str = Field(
        min_length=1, pattern=f"^{PROJECT}$", description="W&B project that the run belongs to"
    )
    entity: str = Field(description="W&B user or team; empty for the default of the key")
    mode: Literal["auto", "online", "offline"] = Field(
        description="auto: WANDB_MODE where set, else online where there is a key and the server "
        "answers, else offline"
    )

    def open(self, job: Job) -> Tracker:
        return WandbTracker(job, project=self.project, entity=self.entity, mode=self.mode)


class WandbTracker(Tracker):
    """One W&B run. Curves have the epoch for their axis; W&B's own step only counts what was given.

    The summary has the best value of a curve of SHOWN, {"min": 0.98} as W&B writes it, or its last
    where neither way is better; and none where the run has several folds or seeds. A result given
    by `summary` under the same name replaces that value.
    """

    keeps: ClassVar[bool] = True

    def __init__(self, job: Job, *, project: str, entity: str, mode: str) -> None:
        self.folder = job.folder / "wandb"
        self._make_folder()
        self.run_id = job.run_id
        self.step = int(self._read("step", "0"))
        self.values: dict[str, Any] = json.loads(self._read("summary.json", "{}"))
        self.own_summary: set[str] = set()  # curves that W&B was told to leave out of its summary
        arguments = {"project": project, "entity": entity or None, "id": job.run_id}
        self.run = _start(mode, arguments | _about(job), job)
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")
        self.run.summary.update(self.values)

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        best = {name: self._best(name, value) for name, value in metrics.items()}
        self.summary({name: value for name, value in best.items() if _is_summed_up(name)})
        self._log({"epoch": step, **metrics})

    def summary(self, values: dict[str, Any]) -> None:
        self.values |= values
        text = json.dumps(self.values, default=operator.methodcaller("item"))  # numpy's scalars
        # No fsync, because this is written at each epoch. A kill loses nothing that the kernel
        # holds, a power cut loses a summary, and the run's own metrics.json is durable.
        write_atomic(self.folder / "summary.json", text.encode(), durable=False)
        self.run.summary.update(values)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        import wandb

        with self._staging_inside():
            self._log({name: wandb.Table(columns=[*frame.columns], data=frame.rows())})

    def figure(self, name: str, figure: Figure | Path) -> None:
        import wandb
        from PIL import Image

        with Image.open(io.BytesIO(png(figure))) as image:
            self._log({name: wandb.Image(image)})

    def page(self, name: str, text: str) -> None:
        import wandb

        # The page brings its own style, and is a text where W&B would first look for a file of that
        # name.
        self._log({name: wandb.Html(text, inject=False, data_is_not_path=True)})

    def artifact(self, name: str, path: Path, metadata: dict[str, Any]) -> None:
        import wandb

        with self._staging_inside():
            artifact = wandb.Artifact(
                f"{self.run_id}-{file_name(name)}", type="model", metadata=metadata
            )
            # W&B's cache would keep a second copy of all weights in the home folder.
            artifact.add_file(str(path), skip_cache=True)
            self.run.log_artifact(artifact)

    def finish(self, exit_code: int = 0) -> None:
        self.run.finish(exit_code=exit_code)

    def _best(self, name: str, value: float) -> Any:
        """Over all processes of the run; W&B's own best-of would begin anew with each."""
        if name not in self.own_summary:
            self.run.define_metric(name, step_metric="epoch", summary="none")
            self.own_summary.add(name)
        way = best_of(name)
        if way == "last":
            return value
        known = self.values.get(name)
        if not isinstance(known, dict) or math.isnan(known[way]):
            return {way: value}
        if math.isnan(value):
            return known
        return {way: min(known[way], value) if way == "min" else max(known[way], value)}

    def _log(self, data: dict[str, Any]) -> None:
        # Counted before it is given: a kill in between leaves a gap, which W&B takes; a step given
        # twice it would drop.
        self.step += 1
        write_atomic(self.folder / "step", str(self.step).encode(), durable=False)
        self.run.log(data, step=self.step - 1, commit=True)

    def _make_folder(self) -> None:
        # W&B itself falls back to a temporary folder, silently, where it cannot write.
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(
                f"{self.folder}: cannot be written ({error}); take logger=none, or another folder: "
                "paths.runs=<folder>"
            ) from error

    def _read(self, name: str, otherwise: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else otherwise

    @contextmanager
    def _staging_inside(self) -> Iterator[None]:
        """Makes W&B keep the files of tables, which `wandb sync` needs, with the run; by itself it
        stages them below the home folder.
        """
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(self.folder.resolve())
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]
            else:
                os.environ["WANDB_DATA_DIR"] = before


def _about(job: Job) -> dict[str, Any]:
    """What W&B is told of a job. A backtest adds its config and tags and renames nothing: name,
    group and type stay those of the training.
    """
    config = job.config | {"code": {"git": git_state(), "versions": versions()}}
    about = {"dir": str(job.folder), "tags": list(job.tags) or None}
    # Below a key of its own: the same fields of the training stay as they are.
    if job.is_backtest:
        return about | {"config": {job.name: config}}
    is_study = job.name == "study"
    title = f"study {job.run_id}" if is_study else title_of(job.config, job.run_id)
    group = job.group or job.config.get("experiment") or "no experiment"
    tags = [*dict.fromkeys([*job.tags, *words_of(job.config)])]
    return about | {
        "config": config, "name": title, "group": group, "job_type": job.name, "tags": tags or None,
    }  # fmt: skip


def _is_summed_up(curve: str) -> bool:
    """Whether a curve has a value in the summary, where results stand for several folds and
    seeds.
    """
    found = find(curve)
    return found is not None and found.name in SHOWN and curve.count("/") == 1


def _start(mode: str, arguments: dict[str, Any], job: Job) -> Any:
    """The W&B run; says why, in one line, when `auto` ends offline."""
    import wandb

    def init(mode: Literal["online", "offline", "disabled"]) -> Any:
        settings = quiet_settings(init_timeout_s=INIT_TIMEOUT_S, flush_s=FLUSH_S)
        # `allow`, because a resumed training and each backtest go on with the run of the same id.
        # `create_new`, because a notebook may have a run of its own open, which W&B would hand out
        # or end instead.
        return wandb.init(
            **arguments, mode=mode, resume="allow", reinit="create_new", settings=settings
        )

    asked = os.environ.get("WANDB_MODE") if mode == "auto" else mode
    if asked in ("offline", "disabled"):
        return init("offline" if asked == "offline" else "disabled")
    reason = "" if has_key() else "there is no key"
    if not reason:
        try:
            return init("online")
        # A wrong key is a mistake to mend. To go offline because of it would hide the mistake.
        except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            raise TrackingError(
                f"logger=wandb: {error} Mend it, or take logger.mode=offline"
            ) from error
        except wandb.errors.CommError as error:
            reason = f"the server gives no answer ({str(error).splitlines()[0]})"
        wandb.teardown()  # the failed attempt keeps the run id in use
    if mode == "online":
        raise TrackingError(
            f"logger.mode=online: {reason}; log in with `wandb login`, or take logger.mode=offline"
        )
    # A study's line is the sweep's last word: it uploads the trials too.
    upload = "" if job.name == "study" else f"; upload it: {sync_line(job.folder)}"
    log.warning("W&B: %s, so the run stays offline%s", reason, upload)
    return init("offline")


def sync_line(folder: Path, *, of_study: bool = False) -> str:
    """What uploads the files of the run in `folder`, and of a study those of its trials too."""
    quoted = shlex.quote(str(folder))
    files = [f"{quoted}/wandb/offline-run-*"]
    if of_study:
        # The pattern stays out of the quotes, so that the shell expands it.
        files.append(f"{quoted}/[0-9]*/wandb/offline-run-*")
    return " ".join(["wandb sync", *files])


def has_key() -> bool:
    """Whether W&B will find credentials without asking: in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    paths = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for path in paths:
        # A file that W&B could not read either counts as no key, and the run stays offline.
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(os.path.expanduser(path)).authenticators(host):
                return True
    return False
