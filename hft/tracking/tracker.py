"""What a run may show, to whichever logger: the contract of trackers, and which way each curve is
better.

In: metrics per epoch, summary numbers, frames, figures and files. The tracker here keeps nothing.
To add one: a subclass with `keeps = True`, and a LoggerSpec in hft/tracking/logger that opens it.
"""

from __future__ import annotations

import io
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
    """What a tracker has to know of one job, training or backtest, on a run."""

    run_id: str
    folder: Path
    config: dict[str, Any]
    tags: tuple[str, ...]
    group: str
    name: str


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
        self.finish(exit_code=0 if kind is None else 1)


def best_of(name: str) -> Literal["min", "max", "last"]:
    """Which value of a curve stands for it: of `fold-0/seed-7/select/net_bps_day@vip0` the
    largest.
    """
    found = find(name)
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
    return "".join(c if c.isalnum() or c in "-_.@" else "-" for c in name).lstrip(".")
