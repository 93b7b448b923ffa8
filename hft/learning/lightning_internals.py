"""Everything of Lightning that is private or may change with a version, each behind a name of ours
that a test fails by (tests/learning/test_lightning_internals.py). Written for 2.6.

Nothing but hft/learning/module.py and callbacks.py imports this file before a training: Lightning
takes 2.5 s to import.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as lightning
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.utilities.exceptions import SIGTERMException

CHATTER = "pytorch_lightning.utilities.rank_zero"  # the logger of "GPU available: ..." and the like
# Callbacks that hook into Lightning's own optimisation, which we do not use: with us they would do
# nothing, and say nothing.
WITHOUT_EFFECT = (WeightAveraging, StochasticWeightAveraging, GradientAccumulationScheduler)


def local_environment() -> LightningEnvironment:
    """One process, whatever the variables say: in a Slurm job Lightning would count the job's tasks
    as ranks, and answer the signals that are meant for the launcher.
    """
    return LightningEnvironment()


def go_on_at(trainer: lightning.Trainer, epoch: int) -> None:
    """Makes Lightning count epochs as we do, before the batches of `epoch` are asked for. It
    drops the position within the epoch that Lightning restored: we give the batches that are left.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch
    if trainer.fit_loop.restarting:
        trainer.fit_loop.restarting = False


def reload_every_epoch(trainer: lightning.Trainer) -> None:
    """Makes Lightning ask for batches each epoch; else it would repeat those of the first."""
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined] # set at run time


def callbacks_of(trainer: lightning.Trainer) -> list[lightning.Callback]:
    """The Trainer's own, and those that the module adds."""
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined] # set at run time
    return callbacks


def unsupported_settings(trainer: lightning.Trainer) -> list[str]:
    """Arguments of the Trainer that would change the numbers, or lose an epoch, in silence."""
    given: Any = trainer  # Lightning sets some of these at run time, unseen by a type checker
    found = {
        "precision": given.precision != "32-true",
        # With fewer batches than the learner plans its epoch never comes to its end: it would be
        # neither scored nor kept.
        "limit_train_batches": given.limit_train_batches != 1.0,
        "overfit_batches": given.overfit_batches != 0,
        "fast_dev_run": bool(given.fast_dev_run),
        "max_steps": given.max_steps != -1,
        # Every process would train on all chunks.
        "devices": given.world_size != 1,
    }
    return [name for name, is_set in found.items() if is_set]


def is_sigterm(error: BaseException) -> bool:
    """Whether Lightning raised `error` for a SIGTERM that its own handler had taken."""
    return isinstance(error, SIGTERMException)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's chatter, and without two warnings that no user can act on."""
    log = logging.getLogger(CHATTER)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 in a way that torch deprecates.
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
            )
            # Lightning looks for Slurm wherever srun is installed.
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            yield
    finally:
        log.setLevel(level)
