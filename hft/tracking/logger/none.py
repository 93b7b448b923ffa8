"""Nothing is kept beside the run's own folder."""

from __future__ import annotations

from typing import Literal

from hft.tracking.logger import LoggerSpec
from hft.tracking.tracker import Job, Tracker


class NoLogger(LoggerSpec):
    kind: Literal["none"]

    def open(self, job: Job) -> Tracker:
        return Tracker()
