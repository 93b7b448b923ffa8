"""The Lightning side of a training, public: a LightningModule, its chunks as a LightningDataModule,
and with them any callbacks.

fit() is these few lines, kill-proof; a notebook that wants a callback of its own writes them out.
On a CPU both give the same bits:

    learner = make_learner(
        classifier, dataset, role_T,
        loss=config.loss, optim=config.optim, trainer=config.trainer, seed=0,
    )
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=config.trainer.epochs, callbacks=[Mine()],
        logger=False, enable_checkpointing=False,
    )
    trainer.fit(TrainingModule(learner), ChunkLoader(learner))
    classifier.save(Path("weights.safetensors"))  # the best epoch's
    print(learner.result.history)

`make_learner` stands in hft/learning/fit.py. Lightning's defaults for `logger` and
`enable_checkpointing` leave a folder lightning_logs/. A callback's `on_train_epoch_end` finds the
epoch's metrics in `trainer.callback_metrics`, as tensors of float32, and exactly in
`module.learner.result.history[-1]`; Lightning's EarlyStopping and ModelCheckpoint monitor them by
name. `fit(..., ckpt_path=...)` goes on from Lightning's own checkpoints with the same bits.

What a step and an epoch do stands in hft/learning/learner.py. Only functions import this file:
Lightning takes 2.5 s to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as lightning
import torch

from hft.learning.callbacks import KeepState, Monitor, ProgressBar, Settings, asked_callbacks
from hft.learning.interruption import Keeper, signals
from hft.learning.learner import Learner, OnEpoch, Steps
from hft.learning.lightning_internals import (
    WITHOUT_EFFECT,
    callbacks_of,
    go_on_at,
    local_environment,
    quiet,
    reload_every_epoch,
    unsupported_settings,
)
from hft.learning.trainer import TrainingError

STATE = "hft_learner"  # our key in Lightning's checkpoints


def never_stop(epoch: int, metrics: dict[str, float]) -> bool:
    return False


class TrainingModule(lightning.LightningModule):
    """Drives a Learner, once. After the fit the classifier is in eval mode and holds the state with
    the best `trainer.monitor`.

    `on_epoch` gets the metrics of each epoch and what the monitors measured, may predict with the
    classifier as it is then, and stops the training by returning True.
    """

    def __init__(self, learner: Learner, *, on_epoch: OnEpoch = never_stop) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step is any number of backward passes
        self.classifier = learner.classifier
        self.learner, self.on_epoch = learner, on_epoch
        self.was_fitted = False

    def configure_callbacks(self) -> Sequence[lightning.Callback]:
        """Lightning adds these to the Trainer's own."""
        _refuse_settings(self.trainer, self.learner)
        return [Settings(self.learner), *asked_callbacks(self.learner.trainer)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.learner.optimizer

    def setup(self, stage: str) -> None:
        if self.was_fitted or self.learner.is_done:
            raise TrainingError(
                "TrainingModule: fitted before, and a second fit would train on past the end; make "
                "a new one of a fresh classifier and learner"
            )
        self.was_fitted = True
        # begin_epoch does it again; here it spares Lightning's warning of modules in eval mode.
        self.classifier.train()
        reload_every_epoch(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.learner.begin_epoch()

    def training_step(self, starts_B: torch.Tensor, batch: int) -> None:
        learner, optimizer = self.learner, self.optimizers()
        assert not isinstance(optimizer, list)  # configure_optimizers returns one
        learner.begin_step()
        optimizer.zero_grad()
        for loss in learner.losses(starts_B):
            self.manual_backward(loss)
        learner.clip()
        # Through Lightning's wrapper, which counts the trainer's global step: ModelCheckpoint saves
        # by it.
        optimizer.step()
        learner.end_step()
        # Only after a look: to show every step's loss would make a GPU wait for it.
        if self.trainer.progress_bar_callback and not learner.unseen:
            self.log("loss", learner.sums.loss / learner.sums.weight, prog_bar=True)
        if learner.batch == learner.n_batches:
            self._end_epoch()

    def _end_epoch(self) -> None:
        """Within the last step, before any callback can look: in a hook of the module's own,
        callbacks would find the epoch before, and checkpoints an epoch that has not been scored.
        """
        self.learner.end_epoch(self._show)

    def _show(self, epoch: int, metrics: dict[str, float]) -> bool:
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, Monitor):
                metrics = metrics | callback.measure(self.learner)
        # Without a size Lightning would guess one from the chunk starts; each value is logged once
        # an epoch, so there is nothing to weigh.
        for name, value in metrics.items():
            bar = name == self.learner.trainer.monitor
            self.log(name, value, on_step=False, on_epoch=True, batch_size=1, prog_bar=bar)
        return self.on_epoch(epoch, metrics)

    def on_train_epoch_end(self) -> None:
        if self.learner.is_done:  # never set it False: a callback may have asked to stop
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        # A Trainer stopped within the first epoch has scored nothing; the weights stay as they are.
        if self.learner.best_state:
            self.classifier.load_state_dict(self.learner.best_state)
        self.classifier.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[STATE] = self.learner.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's own position and optimiser are not enough to give the same bits."""
        if STATE not in checkpoint:
            raise TrainingError(
                "ckpt_path: a checkpoint that no TrainingModule wrote; leave ckpt_path out, or "
                "give one that this module wrote"
            )
        self.learner.restore(checkpoint[STATE])


class ChunkLoader(lightning.LightningDataModule):
    """The chunks of each epoch, or of what is left of it: a batch is a vector of chunk starts, and
    the bars themselves are on the device already.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def setup(self, stage: str) -> None:
        module = self.trainer.lightning_module if self.trainer else None
        if not isinstance(module, TrainingModule) or module.learner is not self.learner:
            raise TrainingError(
                "ChunkLoader: gives the chunks of another learner than the module trains; make "
                "both of one: fit(TrainingModule(learner), ChunkLoader(learner))"
            )

    def train_dataloader(self) -> Steps:
        assert self.trainer is not None  # Lightning asks, and has set it
        go_on_at(self.trainer, self.learner.epoch)
        return self.learner.steps()


def _refuse_settings(trainer: lightning.Trainer, learner: Learner) -> None:
    """Raises TrainingError for what Lightning would ignore or count otherwise than we do."""
    if found := unsupported_settings(trainer):
        raise TrainingError(
            f"Trainer: {', '.join(found)} would change what is trained, and nothing would say so; "
            "leave it out and set a field of the trainer's spec: precision, limit_batches, "
            "overfit, epochs"
        )
    for callback in callbacks_of(trainer):
        if isinstance(callback, WITHOUT_EFFECT):
            raise TrainingError(
                f"Trainer: {type(callback).__name__} has no effect on a TrainingModule; set "
                "trainer.ema for averaged weights, trainer.accumulate for larger steps"
            )
    device = trainer.strategy.root_device
    if device.type != learner.device.type:
        raise TrainingError(
            f"Trainer: trains on {device.type}, the learner's data are on {learner.device.type}; "
            f"give Trainer(accelerator={learner.device.type!r}), or another trainer's spec"
        )


def train(learner: Learner, keeper: Keeper, on_epoch: OnEpoch) -> None:
    """One training to its end, its state kept. Raises Interrupted."""
    spec = learner.trainer
    with quiet(), signals(keeper) as install_handlers:
        callbacks: list[lightning.Callback] = [KeepState(keeper, install_handlers)]
        if spec.progress:
            callbacks.append(ProgressBar())
        trainer = lightning.Trainer(
            accelerator=learner.device.type,
            devices=1,
            plugins=[local_environment()],
            max_epochs=spec.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=spec.progress,
            callbacks=callbacks,
            default_root_dir=keeper.path.parent,
        )
        trainer.fit(TrainingModule(learner, on_epoch=on_epoch), ChunkLoader(learner))
        if keeper.signal_number:  # after the last look at it, with the training done and saved
            raise keeper.interrupted(keeper.signal_number)
