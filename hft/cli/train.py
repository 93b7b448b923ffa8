"""`hft train ...`, also `python train.py ...`: compose, parse, train; README.md shows the ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hydra

from hft.cli._entry import run
from hft.system.conf import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hft.runs.train import Outcome


# With -m Hydra calls its sweeper (hydra_plugins/) in place of this, so that a study never gets
# here.
@hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="train")
def _train(composed: DictConfig) -> Outcome:
    # Imported when the task runs: Hydra's completion and --cfg need none of it.
    from hft.runs.jobs import train_job
    from hft.runs.reproduce import reproduce
    from hft.runs.train import train

    job = train_job(composed)
    if job.repeated is not None:
        return reproduce(job.config, job.repeated, overrides=job.overrides)
    return train(job.config, run=job.resumed, overrides=job.overrides)


def _read(composed: DictConfig, **given: Any) -> Any:
    from hft.search.settings import read_command

    # Not train_job: the command line with the mistake may be a sweep's, and its settings are read
    # too.
    return read_command(composed, **given)


def main(arguments: list[str]) -> int:
    return run("train", _train, _read, arguments)
