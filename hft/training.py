"""Training, the only file that imports Lightning (inside functions): loop, early stopping, calibration, predictions.

In: a Classifier, a Dataset, every row's role. Out: the classifier with its best state, in place and as
`weights.safetensors`, and a FitResult. The dataset lives on the device; a batch is a vector of chunk starts, and a
chunk of R - 1 + C bars gives C examples in one pass. A row counts when it has a label and a weight, its role asks for
it and its R bars are usable. To add an optimiser or a trainer: a subclass of OptimSpec or TrainerSpec and its YAML.

Legend: T bars, P padded bars, F features, B chunks, W = R - 1 + chunk, M = B * chunk, N rows that count, C classes.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn.functional import pad

from hft.dataset import Dataset, usable
from hft.loss import LossSpec
from hft.model import Chunks, Classifier, dense_logits
from hft.schema import CLASS_NAMES, metric
from hft.spec import Kind, UserError, did_you_mean
from hft.splits import ROLES
from hft.statistics import classification_metrics

LOWER_IS_BETTER = ("loss", "log_loss", "brier", "calibration_error")
HIGHER_IS_BETTER = ("macro_f1", "mcc", "accuracy", *(f"{m}_{c}" for m in ("precision", "recall") for c in CLASS_NAMES))
MONITORS = [metric("tune", name) for name in LOWER_IS_BETTER + HIGHER_IS_BETTER]


class TrainingError(UserError):
    """A training that cannot start or go on."""


class OptimSpec(Kind):
    def build(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        raise NotImplementedError


class AdamW(OptimSpec):
    kind: Literal["adamw"]
    lr: float = Field(gt=0, le=10, description="step size")
    weight_decay: float = Field(ge=0, le=10, description="decoupled decay per unit of lr; biases and gains have none")

    def build(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.lr, fused=True)


class TrainerSpec(Kind):
    epochs: int = Field(ge=1, le=100_000, description="passes over the training rows at most")
    chunk: int = Field(ge=1, le=1_000_000, description="bars that one chunk predicts")
    batch_chunks: int = Field(ge=1, le=65_536, description="chunks per step; examples per step = chunk * batch_chunks")
    clip_norm: float = Field(gt=0, description="largest norm of the gradient")
    patience: int = Field(ge=1, description="epochs without a better `monitor` before training stops")
    monitor: str = Field(description="tune metric that chooses the best epoch, such as tune/log_loss")
    threads: int = Field(ge=0, le=1024, description="CPU threads; 0 leaves it to torch (OMP_NUM_THREADS or the cores)")
    progress: bool = Field(description="show a progress bar")

    @field_validator("monitor")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in MONITORS:
            hint = did_you_mean(name, MONITORS) or f"; one of {', '.join(MONITORS)}"
            raise ValueError(f"must be a metric of tune, got {name!r}{hint}")
        return name

    def device(self) -> torch.device:
        raise NotImplementedError

    def scoring_device(self) -> torch.device:
        """Where predictions are made: a run trained on a GPU can be scored without one."""
        return torch.device("cuda" if self.kind == "gpu" and torch.cuda.is_available() else "cpu")


class Cpu(TrainerSpec):
    kind: Literal["cpu"]

    def device(self) -> torch.device:
        return torch.device("cpu")


class Gpu(TrainerSpec):
    kind: Literal["gpu"]

    def device(self) -> torch.device:
        if not torch.cuda.is_available():
            raise TrainingError(f"trainer=gpu: torch {torch.__version__} sees no CUDA GPU; use trainer=cpu")
        return torch.device("cuda", 0)


@dataclass
class FitResult:
    """`history[epoch]`, from 0, holds `train/loss` (running), `tune/loss` (every row alike, uncalibrated logits) and
    `tune/<name>` for each of `classification_metrics` on probabilities calibrated on the same rows."""

    class_counts: np.ndarray  # of the training rows that count
    n_tune: int
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    stopped: Literal["epochs", "patience", "callback"] = "epochs"
    examples_per_s: float = 0.0  # training alone, without the evaluation of tune


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
) -> FitResult:
    """Trains in place on `train` and calibrates on `tune` after every epoch; the state with the best `trainer.monitor`
    ends in `classifier` (in eval mode) and in `folder/weights.safetensors`. `on_epoch(epoch, metrics)` may predict with
    the classifier as it is then, and stops training by returning True. On a CPU, the same seed and number of threads
    give the same bits.
    """
    device = trainer.device()
    with _settings(trainer.threads, device):
        job = _Job(classifier.to(device), dataset, role_T, loss=loss, trainer=trainer, seed=seed, on_epoch=on_epoch)
        _run_lightning(job, optim)
        classifier.load_state_dict(job.best_state)
    classifier.cpu().eval().save(folder / "weights.safetensors")
    return job.result


def predict(classifier: Classifier, dataset: Dataset, *, device: torch.device | str) -> np.ndarray:
    """Calibrated probabilities float64 [T, 3] of every bar, nan where not all of its R bars are usable."""
    x_TF = classifier.to(device).scale(torch.from_numpy(dataset.x_TF).to(device))
    x_PF = pad(x_TF, (0, 0, classifier.receptive_field - 1, 0))
    logits_TC = dense_logits(classifier.network, x_PF, usable(dataset, classifier.receptive_field))
    return classifier.apply_calibration(logits_TC).softmax(-1).cpu().numpy()


class _Job:
    """One training: what lives on the device, the loss of a batch, and what happens after an epoch."""

    def __init__(
        self,
        classifier: Classifier,
        dataset: Dataset,
        role_T: np.ndarray,
        *,
        loss: LossSpec,
        trainer: TrainerSpec,
        seed: int,
        on_epoch: Callable[[int, dict[str, float]], bool],
    ) -> None:
        self.classifier, self.trainer, self.seed, self.on_epoch = classifier, trainer, seed, on_epoch
        self.reach = classifier.receptive_field - 1
        self.train_T, self.tune_T = _counted(dataset, role_T, classifier.receptive_field)
        self.y_tune = dataset.y_T[self.tune_T]
        counts_C = np.bincount(dataset.y_T[self.train_T], minlength=len(CLASS_NAMES))
        self.result = FitResult(class_counts=counts_C, n_tune=len(self.y_tune))
        device = trainer.device()
        self.loss_fn = loss.build(counts_C).to(device)
        around = (self.reach + trainer.chunk, trainer.chunk)  # a chunk may begin before bar 0 and end after the last
        self.x_PF = pad(classifier.scale(torch.from_numpy(dataset.x_TF).to(device)), (0, 0, *around))
        w_T = np.where(self.train_T, dataset.w_T / dataset.w_T[self.train_T].mean(), 0).astype(np.float32)
        self.w_P = pad(torch.from_numpy(w_T).to(device), around)
        self.y_P = pad(torch.from_numpy(np.maximum(dataset.y_T, 0)).to(device), around)
        self.window_W = torch.arange(self.reach + trainer.chunk, device=device) + trainer.chunk
        self.best, self.best_state, self.seconds = np.inf, {}, 0.0

    def begin_epoch(self) -> None:
        self.classifier.train()
        self.loss_sum, self.weight_sum = 0.0, 0.0
        self.started = time.perf_counter()

    def loss(self, starts_B: torch.Tensor, epoch: int, batch: int) -> torch.Tensor:
        rows_BW = starts_B[:, None] + self.window_W
        rows_M = rows_BW[:, self.reach :].flatten()
        logits_MC = self.classifier.network(self.x_PF[rows_BW])[:, self.reach :].flatten(0, 1).float()
        w_M = self.w_P[rows_M]
        total = (w_M * self.loss_fn(logits_MC, self.y_P[rows_M])).sum()
        if not torch.isfinite(total):
            raise TrainingError(
                f"loss is {total.item()} at epoch {epoch}, batch {batch}: likely causes are steps too large (lower "
                "optim.lr or trainer.clip_norm) or outliers in the features (lower transforms.standardize.clip)"
            )
        self.loss_sum, self.weight_sum = self.loss_sum + total.detach(), self.weight_sum + w_M.sum()
        return total / w_M.sum()

    def end_epoch(self, epoch: int) -> bool:
        """Calibrates and scores on `tune`, keeps the state if it is the best so far; True when training is to stop."""
        self.seconds += time.perf_counter() - self.started
        result, monitor = self.result, self.trainer.monitor
        metrics = {metric("train", "loss"): float(self.loss_sum / self.weight_sum)} | self._tune_metrics(epoch)
        result.history.append(metrics)
        result.examples_per_s = len(result.history) * int(result.class_counts.sum()) / self.seconds
        value = metrics[monitor] * (1 if monitor.split("/")[1] in LOWER_IS_BETTER else -1)
        if value < self.best or not self.best_state:
            self.best, result.best_epoch = value, epoch
            self.best_state = {k: v.clone() for k, v in self.classifier.state_dict().items()}
        if self.on_epoch(epoch, metrics):
            result.stopped = "callback"
        elif epoch - result.best_epoch >= self.trainer.patience:
            result.stopped = "patience"
        return result.stopped != "epochs"

    def _tune_metrics(self, epoch: int) -> dict[str, float]:
        seen_PF = self.x_PF[self.trainer.chunk : -self.trainer.chunk]
        logits_NC = dense_logits(self.classifier.network, seen_PF, self.tune_T)[torch.from_numpy(self.tune_T)]
        if not torch.isfinite(logits_NC).all():
            raise TrainingError(f"predictions are not finite after epoch {epoch}: lower optim.lr or trainer.clip_norm")
        loss = float(self.loss_fn(logits_NC, torch.from_numpy(self.y_tune).to(logits_NC.device)).mean())
        self.classifier.calibrate(logits_NC.cpu().numpy(), self.y_tune)
        p_NC = self.classifier.apply_calibration(logits_NC).softmax(-1).cpu().numpy()
        prior_C = self.result.class_counts / self.result.class_counts.sum()
        values = {"loss": loss} | classification_metrics(p_NC, self.y_tune, prior_C=prior_C)
        return {metric("tune", name): value for name, value in values.items()}


def _counted(dataset: Dataset, role_T: np.ndarray, receptive_field: int) -> list[np.ndarray]:
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
    return counted


@contextmanager
def _settings(threads: int, device: torch.device) -> Iterator[None]:
    """Process-wide settings of a fit, put back afterwards: threads, generators, cuDNN, Lightning's chatter."""
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


def _run_lightning(job: _Job, optim: OptimSpec) -> None:
    import pytorch_lightning as lightning

    spec = job.trainer

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = job.classifier

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optim.build(self.classifier.network)

        def on_train_epoch_start(self) -> None:
            job.begin_epoch()

        def training_step(self, starts_B: torch.Tensor, batch: int) -> torch.Tensor:
            sequence = np.random.SeedSequence([job.seed, self.current_epoch, batch])
            torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
            loss = job.loss(starts_B, self.current_epoch, batch)
            self.log("loss", loss, prog_bar=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.trainer.should_stop = job.end_epoch(self.current_epoch)
            self.log(spec.monitor, job.result.history[-1][spec.monitor], prog_bar=True)

    trainer = lightning.Trainer(
        accelerator=job.x_PF.device.type,
        devices=1,
        max_epochs=spec.epochs,
        gradient_clip_val=spec.clip_norm,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=spec.progress,
        callbacks=[lightning.callbacks.RichProgressBar()] if spec.progress else None,
    )
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch 2.13 in a way that torch deprecates.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        trainer.fit(Module(), Chunks(job.train_T, chunk=spec.chunk, batch_chunks=spec.batch_chunks, seed=job.seed))
