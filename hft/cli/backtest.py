"""`hft backtest ckpt=<run> ...`, also `python backtest.py ...`: score a run on the test period it
never saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hydra

from hft.cli._entry import run
from hft.system.conf import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hft.report.scorecard import Scorecard


# Hydra takes a relative path as one from this file.
@hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="backtest")
def _backtest(composed: DictConfig) -> Scorecard:
    # Imported when the task runs: Hydra's completion and --cfg need none of it.
    from hft.runs.backtest import backtest
    from hft.runs.jobs import backtest_job

    return backtest(*backtest_job(composed))


# `explain` gives the group choices and the overrides too, for which a backtest has no use.
def _read(composed: DictConfig, **_: Any) -> Any:
    from hft.runs.jobs import backtest_job

    return backtest_job(composed)


def main(arguments: list[str]) -> int:
    return run("backtest", _backtest, _read, arguments)
