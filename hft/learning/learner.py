"""What learns, in torch alone: the loss of a step, averaged weights, the score after an epoch, and
the state of it all.

In: a classifier, a dataset, the rows that count. Out: steps and epochs that a loop drives, and a
state of plain data from which another process goes on with the same bits. The dataset lives on the
device; a step is a vector of chunk starts. Steps are seeded one by one from (seed, epoch, batch),
so no generator's state has to be kept.

Legend: T bars, P padded bars, F features, B chunks, W = R - 1 + chunk, M = B * chunk, N rows that
count, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import pad
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hft.dataset.rows import Dataset
from hft.learning.loss import LossSpec
from hft.learning.model import CheckpointError, Chunks, Classifier, dense_logits
from hft.learning.optim import OptimSpec
from hft.learning.trainer import TrainerSpec, TrainingError
from hft.metrics import metric
from hft.schema import CLASS_NAMES
from hft.statistics.classes import classification_metrics

CHECK_EVERY = 50  # steps: on a GPU a look at the loss waits for all work in flight


@dataclass
class FitResult:
    """`history[epoch]`, from 0, is repeatable to the bit: `train/loss` (running), `train/lr` (of
    the last step), `train/grad_norm` and `train/grad_norm_max` (before clipping), `tune/loss`
    (every row alike, uncalibrated logits) and `tune/<name>` for each of `classification_metrics` on
    probabilities calibrated on the same rows. `timing[epoch]` holds what is not:
    `train/examples_per_s`, without the evaluation of tune.
    """

    class_counts: np.ndarray  # of the training rows that count
    n_tune: int
    history: list[dict[str, float]] = field(default_factory=list)
    timing: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    stopped: Literal["epochs", "patience", "callback"] = "epochs"

    @property
    def examples_per_s(self) -> float:
        """Of all epochs, each with the same number of examples."""
        speeds = [timing[metric("train", "examples_per_s")] for timing in self.timing]
        return len(speeds) / sum(1 / speed for speed in speeds) if speeds else 0.0


@dataclass
class Sums:
    """Of the steps of an epoch so far, in float64 and in their order: the same bits wherever a kill
    cut them.
    """

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    norm_max: float = 0.0
    seconds: float = 0.0


class Steps:
    """The batches of an epoch that are left, in a shape that Lightning takes for a loader."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.batches)


class Learner:
    def __init__(
        self,
        classifier: Classifier,
        dataset: Dataset,
        rows: tuple[np.ndarray, np.ndarray],
        *,
        loss: LossSpec,
        optim: OptimSpec,
        trainer: TrainerSpec,
        seed: int,
    ) -> None:
        self.classifier, self.trainer, self.optim, self.seed = classifier, trainer, optim, seed
        self.train_T, self.tune_T = rows
        self.reach = classifier.receptive_field - 1
        self.y_tune = dataset.y_T[self.tune_T]
        counts_C = np.bincount(dataset.y_T[self.train_T], minlength=len(CLASS_NAMES))
        self.result = FitResult(class_counts=counts_C, n_tune=len(self.y_tune))
        self._put_on_device(dataset, loss, trainer.device())
        self.chunks = Chunks(
            self.train_T, chunk=trainer.chunk, batch_chunks=trainer.step_chunks, seed=seed
        )
        self.n_batches = min(self.chunks.n_batches, trainer.limit_batches or self.chunks.n_batches)
        self.parameters = list(classifier.network.parameters())
        self.optimizer = optim.build(classifier.network)
        self.averages = [p.detach().clone() for p in self.parameters] if trainer.ema else []
        self.network = torch.compile(classifier.network) if trainer.compile else classifier.network
        self.epoch, self.batch, self.sums = 0, 0, Sums()
        self.best, self.best_state = np.inf, {}
        self.unseen: list[
            torch.Tensor
        ] = []  # loss, weight and norm of steps that nobody has looked at

    def _put_on_device(self, dataset: Dataset, loss: LossSpec, device: torch.device) -> None:
        chunk = self.trainer.chunk
        around = (
            self.reach + chunk,
            chunk,
        )  # a chunk may begin before bar 0 and end after the last
        self.classifier.to(device)
        self.loss_fn = loss.build(self.result.class_counts).to(device)
        self.x_PF = pad(
            self.classifier.scale(torch.from_numpy(dataset.x_TF).to(device)), (0, 0, *around)
        )
        w_T = np.where(self.train_T, dataset.w_T / dataset.w_T[self.train_T].mean(), 0).astype(
            np.float32
        )
        self.w_P = pad(torch.from_numpy(w_T).to(device), around)
        self.y_P = pad(torch.from_numpy(np.maximum(dataset.y_T, 0)).to(device), around)
        self.window_W = torch.arange(self.reach + chunk, device=device) + chunk

    @property
    def is_done(self) -> bool:
        return self.result.stopped != "epochs" or self.epoch >= self.trainer.epochs

    @property
    def step(self) -> int:
        return self.epoch * self.n_batches + self.batch

    def steps(self) -> Steps:
        """What is left of this epoch: views of one vector on the device."""
        planned = self._plan()
        starts = torch.from_numpy(np.concatenate(planned)).to(self.x_PF.device)
        return Steps(list(starts.split([len(batch) for batch in planned])[self.batch :]))

    def _plan(self) -> list[np.ndarray]:
        return self.chunks.batches(0 if self.trainer.overfit else self.epoch)[: self.n_batches]

    def begin_epoch(self) -> None:
        self.classifier.train()
        self.clock = time.perf_counter()

    def begin_step(self) -> None:
        sequence = np.random.SeedSequence([self.seed, self.epoch, self.batch])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        self.lr = self.optim.lr_at(self.step, self.trainer.epochs * self.n_batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def losses(self, starts_B: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of the step's portions, one backward pass each: they add up to the weighted mean over the
        whole step.
        """
        weight = self.w_P[(starts_B[:, None] + self.window_W[self.reach :])].sum()
        loss = torch.zeros_like(weight)
        for part_B in starts_B.tensor_split(min(self.trainer.accumulate, len(starts_B))):
            total = self._weighted_loss(part_B)
            loss += total.detach()
            yield total / weight
        self.unseen.append(torch.stack([loss, weight]))

    def _weighted_loss(self, starts_B: torch.Tensor) -> torch.Tensor:
        rows_BW = starts_B[:, None] + self.window_W
        rows_M = rows_BW[:, self.reach :].flatten()
        with torch.autocast(
            self.x_PF.device.type, torch.bfloat16, enabled=self.trainer.precision == "bf16"
        ):
            logits_BWC = self.network(self.x_PF[rows_BW])
        logits_MC = logits_BWC[:, self.reach :].flatten(0, 1).float()
        return (self.w_P[rows_M] * self.loss_fn(logits_MC, self.y_P[rows_M])).sum()

    def clip(self) -> None:
        """Before the optimiser's step; on a CPU a loss that is not finite ends here, with nothing
        spoilt.
        """
        norm = clip_grad_norm_(self.parameters, self.trainer.clip_norm)
        self.unseen[-1] = torch.cat([self.unseen[-1], norm[None]])
        if self.x_PF.device.type == "cpu" or len(self.unseen) == CHECK_EVERY:
            self._look(self.batch + 1)

    def end_step(self) -> None:
        if self.averages:
            # The weights of the first steps are forgotten sooner, or the average would be of the
            # initial ones.
            decay = min(self.trainer.ema, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(decay)(self.averages, self.parameters, None)
        self.batch += 1

    def _look(self, until: int) -> None:
        """Adds up the steps before `until` that are still unseen; the first that is not finite ends
        the training.
        """
        seen, self.unseen = self.unseen, []
        for batch, (loss, weight, norm) in enumerate(
            torch.stack(seen).tolist() if seen else [], until - len(seen)
        ):
            if not math.isfinite(loss + norm):
                what = (
                    f"loss is {loss}"
                    if not math.isfinite(loss)
                    else f"the gradient's norm is {norm}"
                )
                raise TrainingError(
                    f"{what} at epoch {self.epoch}, batch {batch}: likely causes are steps too large (lower optim.lr "
                    "or trainer.clip_norm) or outliers in the features (lower transforms.standardize.clip)"
                )
            sums = self.sums
            sums.loss, sums.weight = sums.loss + loss, sums.weight + weight
            sums.norm, sums.norm_max = sums.norm + norm, max(sums.norm_max, norm)

    def end_epoch(self, on_epoch: Callable[[int, dict[str, float]], bool]) -> None:
        """Calibrates and scores the (averaged) weights on `tune`, keeps them if they are the best
        so far.
        """
        self._look(self.batch)
        self._stop_clock()
        result, sums, spec = self.result, self.sums, self.trainer
        norms = {"grad_norm": sums.norm / self.n_batches, "grad_norm_max": sums.norm_max}
        examples = sum(self.chunks.count_rows(starts) for starts in self._plan())
        result.timing.append({metric("train", "examples_per_s"): examples / sums.seconds})
        with self._averaged():
            of_train = {"loss": sums.loss / sums.weight, "lr": self.lr, **norms}
            metrics = {
                metric("train", name): value for name, value in of_train.items()
            } | self._tune_metrics()
            result.history.append(metrics)
            value = metrics[spec.monitor] * spec.sign()
            if value < self.best or not self.best_state:
                self.best, result.best_epoch = value, self.epoch
                self.best_state = _copy(self.classifier.state_dict())
            if on_epoch(self.epoch, metrics | result.timing[-1]):
                result.stopped = "callback"
            elif self.epoch - result.best_epoch >= spec.patience:
                result.stopped = "patience"
            self.classifier.to(self.x_PF.device)  # the callback may have predicted elsewhere
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        self.clock = time.perf_counter()

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.sums.seconds, self.clock = self.sums.seconds + now - self.clock, now

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the classifier's place, the trained ones back in it
        afterwards.
        """
        if not self.averages:
            yield
            return
        trained = [p.detach().clone() for p in self.parameters]
        _assign(self.parameters, self.averages)
        yield
        _assign(self.parameters, trained)

    def _tune_metrics(self) -> dict[str, float]:
        seen_PF = self.x_PF[self.trainer.chunk : -self.trainer.chunk]
        logits_NC = dense_logits(self.classifier.network, seen_PF, self.tune_T)[
            torch.from_numpy(self.tune_T)
        ]
        if not torch.isfinite(logits_NC).all():
            raise TrainingError(
                f"predictions are not finite after epoch {self.epoch}: lower optim.lr or trainer.clip_norm"
            )
        loss = float(
            self.loss_fn(logits_NC, torch.from_numpy(self.y_tune).to(logits_NC.device)).mean()
        )
        self.classifier.calibrate(logits_NC.cpu().numpy(), self.y_tune)
        p_NC = self.classifier.apply_calibration(logits_NC).softmax(-1).cpu().numpy()
        prior_C = self.result.class_counts / self.result.class_counts.sum()
        values = {"loss": loss} | classification_metrics(p_NC, self.y_tune, prior_C=prior_C)
        return {metric("tune", name): value for name, value in values.items()}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on and that cannot be computed again; between two
        steps.
        """
        self._look(self.batch)
        self._stop_clock()
        result = self.result
        return {
            "position": {"epoch": self.epoch, "batch": self.batch, "n_batches": self.n_batches},
            "sums": asdict(self.sums),
            "classifier": dict(self.classifier.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "best": {
                "value": float(self.best),
                "epoch": result.best_epoch,
                "state": self.best_state,
            },
            "result": {
                "history": result.history,
                "timing": result.timing,
                "stopped": result.stopped,
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`. With another batching (another trainer) it does so at the same
        share of the epoch.
        """
        try:
            position, best, result = state["position"], state["best"], state["result"]
            self.classifier.load_state_dict(state["classifier"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.averages:
                _assign(self.averages, state["averages"] or self.parameters)
            self.epoch, self.sums = int(position["epoch"]), Sums(**state["sums"])
            self.batch = int(position["batch"]) * self.n_batches // int(position["n_batches"])
            self.best, self.best_state = float(best["value"]), dict(best["state"])
            self.result.history, self.result.timing = (
                list(result["history"]),
                list(result["timing"]),
            )
            self.result.best_epoch, self.result.stopped = int(best["epoch"]), result["stopped"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"last.ckpt: the state of another model or version ({' '.join(str(error).split())[:160]}); "
                "resume with the run's own config, or train again"
            ) from None


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


@torch.no_grad()
def _assign(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
