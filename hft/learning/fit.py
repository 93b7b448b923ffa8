"""Training, the only file that imports Lightning (inside functions): loop, interruption, resume,
predictions.

In: a Classifier, a Dataset, every row's role. Out: the classifier with its best state, in place and
as `weights.safetensors`, and a FitResult. A row counts when it has a label and a weight, its role
asks for it and its R bars are usable. What a step and an epoch do stands in
`hft/learning/learner.py`; Lightning drives it. A resumed training is a new one whose first epoch is
what was left of the one cut short, so of Lightning's own state nothing is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from hft.dataset.rows import Dataset, usable
from hft.dataset.splits import ROLES
from hft.learning.checkpoint import load_state, save_state
from hft.learning.learner import FitResult as FitResult
from hft.learning.learner import Learner, Steps
from hft.learning.loss import LossSpec
from hft.learning.model import Classifier, dense_logits
from hft.learning.optim import OptimSpec
from hft.learning.trainer import TrainerSpec, TrainingError
from hft.spec import UserError

PROFILED = 10  # steps, after the first


class Interrupted(UserError):
    """A signal ended the training, and its state is saved: `fit(..., resume=True)` goes on with the
    same bits.
    """

    def __init__(self, signal_number: int, where: str) -> None:
        self.signal_number = signal_number
        super().__init__(f"interrupted by {signal.Signals(signal_number).name} {where}")

    @property
    def exit_status(self) -> int:
        """143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal_number


def fit(
    classifier: Classifier,
    dataset: Dataset,
    role_T: np.ndarray,
    *,
    loss: LossSpec,
    optim: OptimSpec,
    trainer: TrainerSpec,
    seed: int,
    folder: Path,
    on_epoch: Callable[[int, dict[str, float]], bool],
    resume: bool = False,
) -> FitResult:
    """Trains in place on `train` and calibrates on `tune` after every epoch; the state with the
    best `trainer.monitor` ends in `classifier` (in eval mode) and in `folder/weights.safetensors`.
    `on_epoch(epoch, metrics)` may predict with the classifier as it is then, and stops training by
    returning True; after a kill it may see an epoch twice. On a CPU, the same seed and number of
    threads give the same bits, with any number of interruptions between.

    `resume` goes on from `folder/last.ckpt` where there is one; a training that had ended is read
    back from it. Raises Interrupted, with the state saved, on SIGTERM and Ctrl-C; a second Ctrl-C
    does not wait for the step to end.
    """
    path, device = folder / "last.ckpt", trainer.device()
    with _settings(trainer.threads, device), _memory_advice(trainer):
        rows = _counted(dataset, role_T, classifier.receptive_field)
        learner = Learner(
            classifier, dataset, rows, loss=loss, optim=optim, trainer=trainer, seed=seed
        )
        identity = {
            "seed": seed,
            "optim": optim.plain(),
            "loss": loss.plain(),
            "rows": _identity_of(dataset, rows),
        }
        saver = _Saver(learner, path, identity)
        if resume and (state := load_state(path, identity=identity)):
            learner.restore(state)
        if not learner.is_done:
            _run_lightning(learner, saver, on_epoch)
            saver.save()
        classifier.load_state_dict(learner.best_state)
    classifier.cpu().eval().save(folder / "weights.safetensors")
    return learner.result


def predict(classifier: Classifier, dataset: Dataset, *, device: torch.device | str) -> np.ndarray:
    """Calibrated probabilities float64 [T, 3] of every bar, nan where not all of its R bars are
    usable.
    """
    x_TF = classifier.to(device).scale(torch.from_numpy(dataset.x_TF).to(device))
    x_PF = pad(x_TF, (0, 0, classifier.receptive_field - 1, 0))
    logits_TC = dense_logits(classifier.network, x_PF, usable(dataset, classifier.receptive_field))
    return classifier.apply_calibration(logits_TC).softmax(-1).cpu().numpy()


def _counted(
    dataset: Dataset, role_T: np.ndarray, receptive_field: int
) -> tuple[np.ndarray, np.ndarray]:
    """bool[T] of train and of tune: labelled, with weight, and with R usable bars."""
    counted, usable_T = [], usable(dataset, receptive_field)
    for role in ("train", "tune"):
        of_role_T = (role_T == ROLES.index(role)) & (dataset.y_T >= 0) & (dataset.w_T > 0)
        counted.append(of_role_T & usable_T)
        if not counted[-1].any():
            raise TrainingError(
                f"{role}: none of its {of_role_T.sum()} labelled rows has the {receptive_field} bars that the model "
                "sees, all in one segment and with every feature known; use more data, smaller bars (bars.size), a "
                "shorter receptive field (model.levels, model.se_window, model.window) or shorter feature windows"
            )
    return counted[0], counted[1]


def _identity_of(dataset: Dataset, rows: tuple[np.ndarray, np.ndarray]) -> str:
    """A hash of what is trained on, but for the features: those are too large to read for every
    training.
    """
    digest = hashlib.sha256(repr((dataset.x_TF.shape, dataset.names)).encode())
    for values in (*rows, dataset.y_T, dataset.w_T):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


class _Saver:
    """Keeps `last.ckpt`, at intervals and when a signal asks for the end."""

    def __init__(self, learner: Learner, path: Path, identity: dict[str, Any]) -> None:
        self.learner, self.path, self.identity = learner, path, identity
        self.signal_number, self.saved = 0, time.monotonic()

    def save(self) -> None:
        save_state(self.path, self.learner.state(), identity=self.identity)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Between two steps. Raises Interrupted after a signal."""
        if self.signal_number or time.monotonic() - self.saved >= self.learner.trainer.save_every_s:
            self.save()
        if self.signal_number:
            raise self.interrupted(self.signal_number)

    def interrupted(self, signal_number: int) -> Interrupted:
        where = (
            f"at epoch {self.learner.epoch}, batch {self.learner.batch} of {self.learner.n_batches}"
        )
        return Interrupted(signal_number, f"{where}; the state to resume from is {self.path}")

    def on_signal(self, signal_number: int, _: object) -> None:
        if self.signal_number == signal.SIGINT == signal_number:
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def _settings(threads: int, device: torch.device) -> Iterator[None]:
    """Process-wide settings of a fit, put back afterwards: threads, generators, cuDNN, Lightning's
    chatter.
    """
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    threads_before, level_before = torch.get_num_threads(), log.level
    torch.set_num_threads(threads or threads_before)
    log.setLevel(logging.WARNING)
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            yield
    finally:
        torch.set_num_threads(threads_before)
        log.setLevel(level_before)


@contextmanager
def _memory_advice(trainer: TrainerSpec) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"out of GPU memory with {trainer.batch_chunks} chunks of {trainer.chunk} bars at once: lower "
            f"trainer.batch_chunks (and raise trainer.accumulate, now {trainer.accumulate}, to keep the examples per "
            "step) or trainer.chunk"
        ) from None


@contextmanager
def _signals(saver: _Saver) -> Iterator[Callable[[], None]]:
    """Gives what puts our handlers in place of Lightning's, whose SIGTERM ends a fit with status
    0.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    in_main = threading.current_thread() is threading.main_thread()

    def install() -> None:
        for number in before if in_main else ():
            signal.signal(number, saver.on_signal)

    try:
        yield install
    except (
        SystemExit
    ) as error:  # Lightning's own, of a signal before our handlers stood or of a second Ctrl-C
        if type(error).__name__ == "SIGTERMException":
            raise saver.interrupted(signal.SIGTERM) from None
        if isinstance(error.__context__, KeyboardInterrupt):
            raise saver.interrupted(signal.SIGINT) from None
        raise
    finally:
        for number, handler in before.items() if in_main else ():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _run_lightning(
    learner: Learner, saver: _Saver, on_epoch: Callable[[int, dict[str, float]], bool]
) -> None:
    import pytorch_lightning as lightning
    from pytorch_lightning.plugins.environments import LightningEnvironment

    spec = learner.trainer
    profiler = _Profiler(saver.path.with_name("profile.txt")) if spec.profile else None

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = (
                False  # one batch is one step, of any number of backward passes
            )
            self.classifier = learner.classifier

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return learner.optimizer

        def train_dataloader(self) -> Steps:
            return learner.steps()

        def on_train_start(self) -> None:
            install_handlers()

        def on_train_epoch_start(self) -> None:
            learner.begin_epoch()

        def training_step(self, starts_B: torch.Tensor, batch: int) -> None:
            learner.begin_step()
            optimizer = self.optimizers()
            optimizer.zero_grad()
            for loss in learner.losses(starts_B):
                self.manual_backward(loss)
            learner.clip()
            optimizer.step()
            learner.end_step()

        def on_train_batch_end(self, *_: object) -> None:
            if spec.progress and not learner.unseen:
                self.log("loss", learner.sums.loss / learner.sums.weight, prog_bar=True)
            if profiler:
                profiler.count_step()
            if learner.batch < learner.n_batches:  # else the epoch's end follows, and saves
                saver.save_if_due()

        def on_train_epoch_end(self) -> None:
            learner.end_epoch(on_epoch)
            self.trainer.should_stop = learner.is_done
            self.log(spec.monitor, learner.result.history[-1][spec.monitor], prog_bar=True)
            saver.save_if_due()

    with warnings.catch_warnings(), _signals(saver) as install_handlers:
        # Lightning 2.6 asks torch 2.13 in a way that torch deprecates, and looks for Slurm wherever
        # srun is installed.
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        trainer = lightning.Trainer(
            accelerator=learner.x_PF.device.type,
            devices=1,
            # In a Slurm job it would count the job's tasks as ranks, and answer the signals that
            # are the launcher's.
            plugins=[LightningEnvironment()],
            max_epochs=spec.epochs,
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=spec.progress,
            callbacks=[lightning.callbacks.RichProgressBar(refresh_rate=10)]
            if spec.progress
            else None,
        )
        epochs = trainer.fit_loop.epoch_progress.current
        epochs.processed = epochs.completed = learner.epoch
        trainer.fit(Module())
    if profiler:
        profiler.write()


class _Profiler:
    """A table of the operations that a few steps, and evaluations between them, spend their time
    in.
    """

    def __init__(self, path: Path) -> None:
        os.environ.setdefault(
            "KINETO_LOG_LEVEL", "99"
        )  # it tells standard error about each start and stop
        self.path, self.steps, self.torch = path, 0, torch.profiler.profile()

    def count_step(self) -> None:
        self.steps += 1
        if self.steps == 1:  # of the first step, much is preparation
            self.torch.start()
        elif self.steps == 1 + PROFILED:
            self.torch.stop()

    def write(self) -> None:
        if 1 <= self.steps <= PROFILED:
            self.torch.stop()
        sort = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.torch.key_averages().table(sort_by=sort, row_limit=30)
        self.path.write_text(f"{min(self.steps - 1, PROFILED)} steps of training\n{table}")
