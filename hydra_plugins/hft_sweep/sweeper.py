"""The sweeper behind every -m: its config entry, and the class that Hydra constructs.

Hydra imports this file at each start, so everything heavy is imported where it is used. No `from
__future__ import annotations`: Hydra executes the file before it is in sys.modules, where
dataclasses looks.
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class HftSweeperConf:
    # Hydra constructs its plugins by a `_target_`; no config of hft has one (docs/design.md 3).
    _target_: str = "hydra_plugins.hft_sweep.sweeper.HftSweeper"
    _recursive_: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="hft", node=HftSweeperConf, provider="hft")


class HftSweeper(Sweeper):
    """Runs a study of the app's `sweep` group (train.py), or a plain grid where the app has none
    (backtest.py).
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task, self.app = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        if "sweep" in self.app:
            from hft.search.command import run_sweep

            return run_sweep(arguments, config_loader=self.context.config_loader)
        from hydra_plugins.hft_sweep._grid import run_grid

        return run_grid(arguments, context=self.context, task_function=self.task, config=self.app)
