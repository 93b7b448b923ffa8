"""Our Lightning callbacks: they watch a training and change no number of it.

`trainer.callbacks` names what acts beside the steps. Early stopping and averaged weights do change
numbers, so the Learner does them, with or without Lightning, and their numbers are fields of the
trainer (`patience`, `ema`). Here is the rest: monitors, the Profiler, and KeepState, which fit()
adds.

To add a monitor: a subclass of Monitor, its name in KINDS and in CallbackName of
hft/learning/trainer, and its metrics in hft/metrics.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from hft.learning.insight import gate_activity, gated_blocks
from hft.learning.interruption import Keeper
from hft.learning.learner import Learner
from hft.learning.trainer import TrainerSpec, TrainingError
from hft.metrics import metric
from hft.system.files import write_atomic

PROFILED = 10  # steps, after the first


class Monitor(lightning.Callback):
    """Measures something when an epoch has been scored."""

    def measure(self, learner: Learner) -> dict[str, float]:
        """Values by metric name; the weights that were scored stand in the classifier. The values
        go to Lightning's loggers and to `on_epoch`, which shows them as curves; the training's
        history does not keep them.
        """
        raise NotImplementedError


class LrMonitor(Monitor):
    """The smallest and the largest learning rate of the epoch's steps. `train/lr` is that of the
    last step, where a peak inside the epoch does not show.
    """

    def measure(self, learner: Learner) -> dict[str, float]:
        # Rates are computed anew and not collected: after a resume the epoch's first steps were
        # another process's.
        first, n_steps = learner.epoch * learner.n_batches, learner.n_steps
        steps = range(first, first + learner.n_batches)
        rates = [learner.optim.lr_at(step, n_steps) for step in steps]
        return {metric("train", "lr_min"): min(rates), metric("train", "lr_max"): max(rates)}


class GateMonitor(Monitor):
    """Mean gate of each squeeze-and-excitation block over the rows of tune, and the deviation
    between its channels: a mean near 1 gates nothing, a spread near 0 treats all channels alike.
    """

    def setup(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        if not gated_blocks(module):
            raise TrainingError(
                "trainer.callbacks: gate_monitor has nothing to show, the model has no gates; "
                "leave it out, or choose a model with gates (model=se_tcn)"
            )

    def measure(self, learner: Learner) -> dict[str, float]:
        gates_LKC = gate_activity(learner.classifier.network, learner.seen_PF, learner.tune_T)
        found = {}
        for block, gates_C in enumerate(gates_LKC[:, 0]):
            found[metric(f"tune/block-{block}", "gate")] = float(gates_C.mean())
            found[metric(f"tune/block-{block}", "gate_spread")] = float(gates_C.std())
        return found


KINDS: dict[str, type[Monitor]] = {"lr_monitor": LrMonitor, "gate_monitor": GateMonitor}


class Profiler(lightning.Callback):
    """`profile.txt` in the Trainer's folder: a table of the operations that a few steps, and the
    evaluations between them, spend their time in.
    """

    def __init__(self) -> None:
        # Without this the profiler writes to standard error at each start and stop.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self.steps, self.is_on, self.torch = 0, False, torch.profiler.profile()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1
        if self.steps == 1:  # of the first step, much is preparation
            self.torch.start()
            self.is_on = True
        # torch keeps every recorded operation in memory until the table is made.
        elif self.steps == 1 + PROFILED:
            self._stop()

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        # A training may end before PROFILED steps.
        self._stop()
        sort = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.torch.key_averages().table(sort_by=sort, row_limit=30)
        text = f"{min(self.steps - 1, PROFILED)} steps of training\n{table}"
        # Nothing depends on the file, so it does not wait for the disk.
        write_atomic(Path(trainer.default_root_dir) / "profile.txt", text.encode(), durable=False)

    # torch's profiler belongs to the process: left on, it would record the next training too.
    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.is_on:
            self.torch.stop()
            self.is_on = False


class KeepState(lightning.Callback):
    """Saves at intervals, and ends the training with its state saved when a signal asks for it."""

    def __init__(self, keeper: Keeper, install_handlers: Callable[[], None]) -> None:
        self.keeper, self.install_handlers = keeper, install_handlers

    def on_train_start(self, *_: Any) -> None:
        self.install_handlers()  # after Lightning has put its own

    def on_train_batch_end(self, *_: Any) -> None:
        self.keeper.save_if_due()

    def on_train_end(self, *_: Any) -> None:
        # A training that ended is read back from this state where a kill comes before the run has
        # written its scores; it is not trained again.
        self.keeper.save()


class ProgressBar(lightning.callbacks.RichProgressBar):
    """Lightning's, in one line: what does not fit a narrow terminal is cut instead of wrapped."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)  # steps: redrawing at each costs more than a small step
        self.measured: dict[str, Any] = {}

    def get_metrics(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> dict[str, Any]:
        self.measured = super().get_metrics(trainer, module)
        return {}  # Lightning's own column of metrics wraps, so it gets none

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        return [
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            _Measured(self),
        ]


class _Measured(ProgressColumn):
    """`loss 0.488  tune/log_loss 0.889`"""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self.bar = bar

    def render(self, task: Task) -> Text:
        return Text("  ".join(f"{name} {x:.4g}" for name, x in self.bar.measured.items()))


class Settings(lightning.Callback):
    """Process-wide settings of a fit, put back afterwards: threads, generators, cuDNN."""

    def __init__(self, learner: Learner) -> None:
        self.threads, self.device = learner.trainer.threads, learner.device
        self.stack = ExitStack()

    def setup(self, *_: Any, **__: Any) -> None:
        before = torch.get_num_threads()
        # The number of threads changes the order of float sums, and with it the bits.
        torch.set_num_threads(self.threads or before)
        self.stack.callback(torch.set_num_threads, before)
        devices = [self.device] if self.device.type == "cuda" else []
        # Every step seeds torch's global generators; the caller gets its own state back.
        self.stack.enter_context(torch.random.fork_rng(devices=devices))
        self.stack.enter_context(
            # cuDNN's benchmark mode picks the algorithm that was fastest just now: other bits in
            # each run.
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        )

    def teardown(self, *_: Any, **__: Any) -> None:
        self.stack.close()

    # When a hook raises, Lightning calls this and leaves `teardown` out.
    def on_exception(self, *_: Any) -> None:
        self.stack.close()


def asked_callbacks(spec: TrainerSpec) -> list[lightning.Callback]:
    """Those that `trainer.callbacks` and `trainer.profile` ask Lightning for."""
    # early_stopping and ema change numbers and act in the Learner, so they have no kind here.
    asked: list[lightning.Callback] = [KINDS[n]() for n in spec.callbacks if n in KINDS]
    return [*asked, Profiler()] if spec.profiles else asked
