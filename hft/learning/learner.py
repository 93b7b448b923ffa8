"""What learns, in torch alone: the steps of an epoch, the score after it, and the state of it all.

In: a classifier, a dataset, the rows that count. Out: steps and epochs that a loop drives, and a
state of plain data from which another process goes on with the same bits. The dataset lives on the
device; a step is a vector of chunk starts. Each step is seeded from (seed, epoch, batch), so no
generator's state has to be kept.

Legend: T bars, P padded bars, F features, B chunks, W = R - 1 + chunk, M = B * chunk, N rows that
count, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from torch.nn.utils import clip_grad_norm_

from hft.dataset.rows import Dataset
from hft.learning.averages import Averages
from hft.learning.classifier import CheckpointError, Classifier
from hft.learning.dense import Chunks, dense_logits
from hft.learning.loss import LossSpec
from hft.learning.optim import OptimSpec
from hft.learning.result import FitResult, Sums
from hft.learning.trainer import TrainerSpec, TrainingError
from hft.metrics import metric
from hft.schema import CLASS_NAMES
from hft.statistics.classes import classification_metrics

CHECK_EVERY = 50  # steps: on a GPU a look at the loss waits for all work in flight

# Gets an epoch's number, from 0, and its metrics; returns True to stop the training.
OnEpoch = Callable[[int, dict[str, float]], bool]


class Steps:
    """The batches of an epoch that are left, in a shape that Lightning takes for a loader."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.batches)


class Learner:
    """`rows` are bool[T] of train and of tune: labelled, with weight, with R usable bars each."""

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
        # Of all training rows, whatever `limit_batches` leaves of them: class weights and priors
        # are the data's, not the step count's.
        counts_C = np.bincount(dataset.y_T[self.train_T], minlength=len(CLASS_NAMES))
        self.result = FitResult(class_counts=counts_C)
        self._put_on_device(dataset, loss, trainer.device())
        self.chunks = Chunks(
            self.train_T, chunk=trainer.chunk, batch_chunks=trainer.step_chunks, seed=seed
        )
        self.n_batches = min(self.chunks.n_batches, trainer.limit_batches or self.chunks.n_batches)
        self.parameters = list(classifier.network.parameters())
        self.optimizer = optim.build(classifier.network)
        self.averages = Averages(self.parameters, decay=trainer.ema)
        # The classifier keeps the plain network: compiling prefixes the parameters' names, and
        # those are names in the stored weights.
        self.network = torch.compile(classifier.network) if trainer.compile else classifier.network
        self.epoch, self.batch, self.sums = 0, 0, Sums()
        self.clock = time.perf_counter()
        self.best, self.best_state = np.inf, dict[str, torch.Tensor]()
        # Loss, weight and norm of the steps that `_look` has not seen.
        self.unseen: list[torch.Tensor] = []

    def _put_on_device(self, dataset: Dataset, loss: LossSpec, device: torch.device) -> None:
        chunk = self.trainer.chunk
        around = (self.reach + chunk, chunk)  # a chunk may begin before bar 0, end after the last
        self.classifier.to(device)
        self.loss_fn = loss.build(self.result.class_counts).to(device)
        self.x_PF = pad(
            self.classifier.scale(torch.from_numpy(dataset.x_TF).to(device)), (0, 0, *around)
        )
        # docs/definitions.md 2, label weights: mean 1 over the fold's training rows. Chunks also
        # cover rows of other roles and without a label; weight 0 keeps those out of the loss.
        w_T = np.where(self.train_T, dataset.w_T / dataset.w_T[self.train_T].mean(), 0).astype(
            np.float32
        )
        self.w_P = pad(torch.from_numpy(w_T).to(device), around)
        # A label of -1 would be no class's index. Such a row has weight 0, so any class will do.
        self.y_P = pad(torch.from_numpy(np.maximum(dataset.y_T, 0)).to(device), around)
        # Bar t lies at row reach + chunk + t, so the window of the chunk that starts at bar s
        # begins at row s + chunk.
        self.window_W = torch.arange(self.reach + chunk, device=device) + chunk

    @property
    def is_done(self) -> bool:
        return self.result.stopped != "epochs" or self.epoch >= self.trainer.epochs

    @property
    def device(self) -> torch.device:
        return self.x_PF.device

    @property
    def n_steps(self) -> int:
        """Of all epochs, whether or not training stops early."""
        return self.trainer.epochs * self.n_batches

    @property
    def step(self) -> int:
        return self.epoch * self.n_batches + self.batch

    def steps(self) -> Steps:
        """What is left of this epoch: views of one vector on the device."""
        planned = self._plan()
        # One copy an epoch: a copy per step would make a GPU wait each time.
        starts = torch.from_numpy(np.concatenate(planned)).to(self.device)
        lengths = [len(batch) for batch in planned]
        return Steps(list(torch.split(starts, lengths))[self.batch :])

    def _plan(self) -> list[np.ndarray]:
        return self.chunks.batches(0 if self.trainer.overfit else self.epoch)[: self.n_batches]

    def begin_epoch(self) -> None:
        self.classifier.train()
        self.clock = time.perf_counter()

    def begin_step(self) -> None:
        """Seeds the generators and sets the learning rate, both from the step's number alone."""
        sequence = np.random.SeedSequence([self.seed, self.epoch, self.batch])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        self.lr = self.optim.lr_at(self.step, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def losses(self, starts_B: torch.Tensor) -> Iterator[torch.Tensor]:
        """One loss per portion of the step, for a backward pass each; they add up to the weighted
        mean over the whole step.
        """
        # All portions divide by the weight of the whole step. Divided each by its own, rows of a
        # light portion would count for more, and `accumulate` would change the gradient.
        weight = self.w_P[(starts_B[:, None] + self.window_W[self.reach :])].sum()
        loss = torch.zeros_like(weight)
        # A step of few training rows has fewer chunks than `accumulate`, and an empty portion would
        # have no loss.
        for part_B in starts_B.tensor_split(min(self.trainer.accumulate, len(starts_B))):
            total = self._weighted_loss(part_B)
            loss += total.detach()
            # The caller runs the backward pass here, so one portion's activations are in memory at
            # a time.
            yield total / weight
        self.unseen.append(torch.stack([loss, weight]))

    def _weighted_loss(self, starts_B: torch.Tensor) -> torch.Tensor:
        rows_BW = starts_B[:, None] + self.window_W
        # The first R - 1 bars of a window have fewer than R bars before them, so they get no score.
        rows_M = rows_BW[:, self.reach :].flatten()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.trainer.precision == "bf16"
        ):
            logits_BWC = self.network(self.x_PF[rows_BW])
        # bf16 has 8 significant bits, too few for log probabilities and their sum.
        logits_MC = logits_BWC[:, self.reach :].flatten(0, 1).float()
        return (self.w_P[rows_M] * self.loss_fn(logits_MC, self.y_P[rows_M])).sum()

    def clip(self) -> None:
        """Before the optimiser's step. On a CPU a loss that is not finite ends the training here,
        with sound weights.
        """
        norm = clip_grad_norm_(self.parameters, self.trainer.clip_norm)
        # The norm stays on the device: a number here would make a GPU wait each step.
        self.unseen[-1] = torch.cat([self.unseen[-1], norm[None]])
        if self.device.type == "cpu" or len(self.unseen) == CHECK_EVERY:
            # + 1: this step is counted by end_step, after the optimiser.
            self._look(self.batch + 1)

    def end_step(self) -> None:
        self.averages.step(self.step)
        self.batch += 1

    def _look(self, until: int) -> None:
        """Adds up the unseen steps before `until`. Raises TrainingError for the first that is not
        finite.
        """
        seen, self.unseen = self.unseen, []
        values = torch.stack(seen).tolist() if seen else []
        for batch, (loss, weight, norm) in enumerate(values, until - len(seen)):
            if not math.isfinite(loss + norm):
                is_loss = not math.isfinite(loss)
                what = f"loss is {loss}" if is_loss else f"the gradient's norm is {norm}"
                raise TrainingError(
                    f"{what} at epoch {self.epoch}, batch {batch}: likely causes are steps too "
                    "large (lower optim.lr or trainer.clip_norm) or outliers in the features "
                    "(lower transforms.standardize.clip)"
                )
            sums = self.sums
            sums.loss, sums.weight = sums.loss + loss, sums.weight + weight
            sums.norm, sums.norm_max = sums.norm + norm, max(sums.norm_max, norm)

    def end_epoch(self, on_epoch: OnEpoch) -> None:
        """Calibrates and scores the (averaged) weights on `tune`; keeps them if they are the best
        so far.
        """
        self._look(self.batch)
        self._stop_clock()
        result, sums, spec = self.result, self.sums, self.trainer
        norms = {"grad_norm": sums.norm / self.n_batches, "grad_norm_max": sums.norm_max}
        # From the plan, since after a resume this process has seen a part of the epoch only;
        # `seconds` covers all of it, too.
        examples = sum(self.chunks.count_rows(starts) for starts in self._plan())
        result.timing.append({metric("train", "examples_per_s"): examples / sums.seconds})
        of_train = {"loss": sums.loss / sums.weight, "lr": self.lr, **norms}
        metrics = {metric("train", name): value for name, value in of_train.items()}
        with self.averages.in_place():
            metrics |= self._tune_metrics()
            result.history.append(metrics)
            value = metrics[spec.monitor] * spec.sign()
            # `not best_state`: a first epoch leaves weights behind even if its monitor is nan.
            if value < self.best or not self.best_state:
                self.best, result.best_epoch = value, self.epoch
                self.best_state = _copy(self.classifier.state_dict())
            # Timing is shown but no part of the history, which repeats to the bit.
            if on_epoch(self.epoch, metrics | result.timing[-1]):
                result.stopped = "callback"
            elif spec.stops_early and self.epoch - result.best_epoch >= spec.patience:
                result.stopped = "patience"
            self.classifier.to(self.device)  # the callback may have predicted elsewhere
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        self.clock = time.perf_counter()

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.sums.seconds, self.clock = self.sums.seconds + now - self.clock, now

    @property
    def seen_PF(self) -> torch.Tensor:
        """What the network sees of every bar, from R - 1 rows before bar 0."""
        return self.x_PF[self.trainer.chunk : -self.trainer.chunk]

    def _tune_metrics(self) -> dict[str, float]:
        logits_TC = dense_logits(self.classifier.network, self.seen_PF, self.tune_T)
        logits_NC = logits_TC[torch.from_numpy(self.tune_T)]
        # The last step may have thrown the weights off after a loss that was still finite.
        if not torch.isfinite(logits_NC).all():
            raise TrainingError(
                f"predictions are not finite after epoch {self.epoch}: lower optim.lr or "
                "trainer.clip_norm"
            )
        y_N = torch.from_numpy(self.y_tune).to(logits_NC.device)
        # Uncalibrated, because train/loss beside it is: the distance of the two shows overfitting.
        loss = float(self.loss_fn(logits_NC, y_N).mean())
        self.classifier.calibrate(logits_NC.cpu().numpy(), self.y_tune)
        p_NC = self.classifier.apply_calibration(logits_NC).softmax(-1).cpu().numpy()
        prior_C = self.result.class_counts / self.result.class_counts.sum()
        values = {"loss": loss} | classification_metrics(p_NC, self.y_tune, prior_C=prior_C)
        return {metric("tune", name): value for name, value in values.items()}

    def state(self) -> dict[str, Any]:
        """What the next step depends on and nobody can compute again; to be asked for between two
        steps.
        """
        self._look(self.batch)
        self._stop_clock()
        result = self.result
        return {
            "position": {"epoch": self.epoch, "batch": self.batch, "n_batches": self.n_batches},
            "sums": asdict(self.sums),
            # No copies: the state is written before the next step changes anything.
            "classifier": dict(self.classifier.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.values,
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
        """Goes on from `state`; under another batching (another trainer), at the same share of the
        epoch. Raises CheckpointError.
        """
        try:
            position, best, result = state["position"], state["best"], state["result"]
            self.classifier.load_state_dict(state["classifier"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averages.restore(state["averages"])
            self.epoch, self.sums = int(position["epoch"]), Sums(**state["sums"])
            # Another trainer may cut the epoch into another number of batches.
            self.batch = int(position["batch"]) * self.n_batches // int(position["n_batches"])
            self.best, self.best_state = float(best["value"]), dict(best["state"])
            self.result.history = list(result["history"])
            self.result.timing = list(result["timing"])
            self.result.best_epoch, self.result.stopped = int(best["epoch"]), result["stopped"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            what = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"last.ckpt: the state of another model or version ({what}); resume with the run's "
                "own config, or train again"
            ) from None


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # state_dict gives the live tensors, which the next step would change.
    return {name: value.clone() for name, value in state.items()}
