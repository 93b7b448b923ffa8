"""What a run may show, to whichever logger: the contract of trackers, and the names and words by
which runs are told apart.

In: metrics per epoch, summary numbers, frames, figures and files. The tracker here keeps nothing.
To add one: a subclass with `keeps = True`, and a LoggerSpec in hft/tracking/logger that opens it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hft.metrics import find
from hft.spec import UserError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure


class TrackingError(UserError):
    """A logger that cannot be used as configured."""


@dataclass(frozen=True)
class Job:
    """What a tracker has to know of one job on a run. `name` is one of JOBS, or `backtest_<name>`:
    a backtest has no run of its own and works on that of the training that it scores.
    """

    run_id: str
    folder: Path
    config: dict[str, Any]
    tags: tuple[str, ...]
    group: str
    name: str

    @property
    def is_backtest(self) -> bool:
        return self.name.startswith("backtest_")


class Tracker:
    """Takes what a run has to show and keeps nothing: the tracker of `logger=none`, and the
    contract of the others.

    `epoch` may see one step twice (another fold, a resumed run): the later value of a metric holds.
    """

    keeps: ClassVar[bool] = False  # whether it is worth the time to draw a figure for it

    def epoch(self, metrics: dict[str, float], step: int) -> None:
        """Curves: one point per metric at epoch `step`."""

    def summary(self, values: dict[str, Any]) -> None:
        """Single results by name; the last value holds."""

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """A frame to look at."""

    def figure(self, name: str, figure: Figure | Path) -> None:
        """A matplotlib figure, or the path of a PNG."""

    def page(self, name: str, text: str) -> None:
        """An HTML page that needs no other file; only W&B shows it."""

    def artifact(self, name: str, path: Path, metadata: dict[str, Any]) -> None:
        """A file of the run that others may want, and what made it; only W&B keeps a copy."""

    def finish(self, exit_code: int = 0) -> None:
        """Nothing may be given afterwards."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # W&B marks a run as failed by its exit code.
        self.finish(exit_code=0 if kind is None else 1)


JOBS = {
    "train": "one fold with one seed",
    "folds": "several folds or seeds, as one run",
    "trial": "a run of a study, in the study's group",
    "study": "the study itself, in the same group",
}
TITLE = ("bars", "labels", "model")  # the kinds that a run's title has room for


def kinds_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Group -> kind of a run's plain config: {"bars": "volume", ...}, in the config's order."""
    parts = {name: part for name, part in config.items() if isinstance(part, dict)}
    return {name: str(part["kind"]) for name, part in parts.items() if "kind" in part}


def words_of(config: Mapping[str, Any]) -> list[str]:
    """What to find a run by, as it is typed: `experiment=smoke`, `bars=volume`."""
    kinds = kinds_of(config)
    experiment = config.get("experiment")
    named = {"experiment": experiment} if experiment else {}
    # Where a run is watched and on what it ran tell nothing about what was tried.
    kinds = {name: kind for name, kind in kinds.items() if name not in ("logger", "trainer")}
    return [f"{name}={word}" for name, word in (named | kinds).items()]


def title_of(config: Mapping[str, Any], run_id: str) -> str:
    """`smoke volume/triple_barrier/tcn 20240101-120000-aaaa`: what a run is of, then its id."""
    kinds = kinds_of(config)
    words = [config.get("experiment"), "/".join(kinds[name] for name in TITLE if name in kinds)]
    return " ".join([*filter(None, words), run_id])


def best_of(name: str) -> Literal["min", "max", "last"]:
    """Which value stands for a curve: the largest of `fold-0/seed-7/select/net_bps_day@vip0`."""
    found = find(name)
    # The registry knows which way is better, so that no second list of names can disagree with it.
    ways: dict[str, Literal["min", "max", "last"]] = {"lower": "min", "higher": "max"}
    return "last" if found is None else ways.get(found.better, "last")


def png(figure: Figure | Path) -> bytes:
    if isinstance(figure, Path):
        return figure.read_bytes()
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def file_name(name: str) -> str:
    """`select/confusion` as the name of a file."""
    # No separator and no leading dot: a metric's name leads out of no folder and hides no file.
    return "".join(c if c.isalnum() or c in "-_.@" else "-" for c in name).lstrip(".")
