"""Where a run is reviewed: W&B, CSV files, or nowhere.

In: the logger of a config, and a run's id, folder and config. Out: a Tracker, which writes inside
the run's folder. Training and backtests of one run open a tracker with the same run id and folder,
and so share one W&B run. To add a logger: `hft/tracking/logger/<kind>.py` with a LoggerSpec and the
Tracker that it opens, and a YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hft.spec import Kind
from hft.tracking.tracker import Job, Tracker


class LoggerSpec(Kind):
    def open(self, job: Job) -> Tracker:
        raise NotImplementedError


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
    """The tracker of one job on a run. `config` is plain data without secrets. W&B keeps it, with
    the code's commit and versions as `code`; a backtest's stands below the job's name, so that it
    never overwrites the training's.
    """
    return spec.open(Job(run_id, Path(folder), config, tuple(tags), group, job))
