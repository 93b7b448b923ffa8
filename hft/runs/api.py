"""hft in a notebook: `hft.make_config`, `load_market`, `build_frames`, `train`, `load_run`,
`backtest`.

Overrides are those of the command line, as a list: `["experiment=smoke", "bars.size=20"]`. What the
commands refuse is refused here too, with the same UserError. docs/api.md shows the whole of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from hft.config import compose as command
from hft.config.configs import Paths, TrainConfig
from hft.dataset.stages import Market, build_market
from hft.report.scorecard import Scorecard
from hft.runs import folder
from hft.runs import train as training
from hft.runs.backtest import backtest as score_run
from hft.runs.frames import Frames
from hft.runs.frames import build_frames as frames_of
from hft.runs.jobs import backtest_job, stored_config
from hft.runs.registry import find_run
from hft.spec import parse
from hft.system.cache import Cache


@dataclass(frozen=True)
class Run(folder.Run):
    """A run on disk, read anew at each access; `paths` are this machine's.

    `ledger` and `scorecard` are those of the backtest named `test`; `read_ledger(name)` and
    `read_scorecard(name)` give another's.
    """

    # Two runs are equal where their folders are. Where this machine keeps its caches is no part of
    # a run.
    paths: Paths = field(compare=False)

    @property
    def config(self) -> TrainConfig:
        # The paths in a run's own config are its writer's and are not followed (hft/runs/jobs.py).
        plain = {"paths": self.paths.plain()}
        return stored_config(self, Path(self.paths.runs), plain)

    @property
    def metrics(self) -> dict[str, float | None]:
        """None where a metric has no finite value."""
        return self.read_metrics()

    @property
    def predictions(self) -> pl.DataFrame:
        """PREDICTIONS (docs/columns.md) of `tune` and `select`, every fold and seed."""
        return self.read_predictions()

    @property
    def ledger(self) -> pl.DataFrame:
        """LEDGER (docs/columns.md): a row per trade."""
        return self.read_ledger("test")

    @property
    def scorecard(self) -> Scorecard:
        return self.read_scorecard("test")


def make_config(overrides: Sequence[str] = ()) -> TrainConfig:
    """The config of `hft train <overrides>`."""
    return command.make_config(TrainConfig, list(overrides))


def load_market(config: TrainConfig) -> Market:
    """Ticks and bars of all the config's data, from the cache where they are there, the test period
    included: what is fitted by hand on them has seen it.
    """
    cache = Cache(Path(config.paths.cache))
    return build_market(config.data, config.bars, config.features, cache)


def build_frames(config: TrainConfig, market: Market) -> Frames:
    """Features, labels and aligned arrays, one row per bar of `market`; `market.before(ns)` is what
    was known at a time.
    """
    return frames_of(config, market)


def train(config: TrainConfig) -> Run:
    """What `hft train` does: a new folder in `config.paths.runs`."""
    outcome = training.train(config)
    return Run(Path(config.paths.runs) / outcome.run, config.paths)


def load_run(name: str = "latest", overrides: Sequence[str] = ()) -> Run:
    """The run `name`: its id, a unique beginning of it, `latest`, a folder, or `<study>/<number>`.

    `overrides` say where to look: `["paths.runs=<folder>"]`.
    """
    # Only the paths are parsed: the run brings its own config, and the composed one plays no part.
    paths = parse(Paths, command.to_plain(command.compose(list(overrides)))["paths"])
    found = find_run(Path(paths.runs), name, sweeps=Path(paths.sweeps))
    return Run(found.folder, paths)


def backtest(run: Run, overrides: Sequence[str] = ()) -> Scorecard:
    """What `hft backtest ckpt=<run> <overrides>` does; each reading of test rows is counted."""
    # A placeholder, because conf/backtest.yaml leaves `ckpt` missing. The run is set below as a
    # value: as an override, a folder with `=` or a space in it would need the quotes of Hydra's
    # grammar.
    composed = command.compose(["ckpt=latest", *overrides], entry="backtest")
    composed.paths = run.paths.plain()
    # A trial is found below the sweeps by its id; any other run, wherever it lies, by its folder.
    composed.ckpt = run.id if run.is_trial else str(run.folder.resolve())
    return score_run(*backtest_job(composed))
