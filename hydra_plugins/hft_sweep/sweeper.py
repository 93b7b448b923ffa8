"""The light half of the sweeper: its config entry, and the class that Hydra constructs.

No `from __future__ import annotations`: Hydra executes the file before it is in sys.modules, where
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
    _target_: str = "hydra_plugins.hft_sweep.sweeper.HftSweeper"
    _recursive_: bool = False


ConfigStore.instance().store(group="hydra/sweeper", name="hft", node=HftSweeperConf, provider="hft")


class HftSweeper(Sweeper):
    """A study of the app's `sweep` group where it has one (train.py), else a plain grid
    (backtest.py).
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        if "sweep" in self.config:
            from hft.search.command import run_sweep

            return run_sweep(arguments, config_loader=self.hydra_context.config_loader)
        from hydra_plugins.hft_sweep._grid import run_grid

        return run_grid(
            arguments,
            context=self.hydra_context,
            task_function=self.task_function,
            config=self.config,
        )
