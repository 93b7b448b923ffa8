"""Training and prediction: from a classifier and rows to weights on disk, calibrated and resumable.

In: a Classifier, a Dataset, every row's role. Out: the classifier with its best state, in place and
as `weights.safetensors`, and a FitResult. A row counts when it has a label and a weight, its role
asks for it and its R bars are usable.

The work of a step and an epoch stands in learner.py, the Lightning loop around it in module.py.
A resumed training is a new one whose first epoch is what was left of the one cut short, so nothing
of Lightning's own state is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from hft.dataset.rows import Dataset, usable
from hft.dataset.splits import ROLES
from hft.learning.checkpoint import load_state
from hft.learning.classifier import Classifier
from hft.learning.dense import dense_logits
from hft.learning.interruption import Interrupted as Interrupted
from hft.learning.interruption import Keeper
from hft.learning.learner import Learner, OnEpoch
from hft.learning.loss import LossSpec
from hft.learning.optim import OptimSpec
from hft.learning.result import FitResult as FitResult
from hft.learning.trainer import TrainerSpec, TrainingError


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
    on_epoch: OnEpoch,
    resume: bool = False,
) -> FitResult:
    """Trains in place on `train` and calibrates on `tune` after every epoch. The state with the
    best `trainer.monitor` ends in `classifier` (in eval mode) and in `folder/weights.safetensors`.

    `on_epoch(epoch, metrics)` may predict with the classifier as it is then, and stops training by
    returning True; after a kill it may see an epoch twice. On a CPU, the same seed and number of
    threads give the same bits, with any number of interruptions between.

    `resume` goes on from `folder/last.ckpt` where there is one; a training that had ended is read
    back from it. Raises Interrupted, with the state saved, on SIGTERM and Ctrl-C; a second Ctrl-C
    does not wait for the step to end.
    """
    with _memory_advice(trainer):
        learner = make_learner(
            classifier, dataset, role_T, loss=loss, optim=optim, trainer=trainer, seed=seed
        )
        # Another optimiser, loss or choice of rows is another training. The trainer may differ: a
        # run may go on with smaller batches or on another device.
        identity = {
            "seed": seed,
            "optim": optim.plain(),
            "loss": loss.plain(),
            "rows": _identity_of(dataset, (learner.train_T, learner.tune_T)),
        }
        keeper = Keeper(learner, folder / "last.ckpt", identity)
        if resume and (state := load_state(keeper.path, identity=identity)):
            learner.restore(state)
        if not learner.is_done:
            # Lightning takes 2.5 s to import, and neither a prediction nor a training that is read
            # back needs it.
            from hft.learning.module import train

            train(learner, keeper, on_epoch)
        classifier.load_state_dict(learner.best_state)
    classifier.cpu().eval().save(folder / "weights.safetensors")
    return learner.result


def make_learner(
    classifier: Classifier,
    dataset: Dataset,
    role_T: np.ndarray,
    *,
    loss: LossSpec,
    optim: OptimSpec,
    trainer: TrainerSpec,
    seed: int,
) -> Learner:
    """A Learner at its first step. Moves the dataset and the classifier to the trainer's device.
    Raises TrainingError where no row counts.
    """
    rows = _counted(dataset, role_T, classifier.receptive_field)
    return Learner(classifier, dataset, rows, loss=loss, optim=optim, trainer=trainer, seed=seed)


def predict(classifier: Classifier, dataset: Dataset, *, device: torch.device | str) -> np.ndarray:
    """Calibrated probabilities float64 [T, 3] of every bar, nan where not all of its R bars are
    usable.
    """
    x_TF = classifier.to(device).scale(torch.from_numpy(dataset.x_TF).to(device))
    # The rows in front only put bar 0 where `dense_logits` expects it: no bar that sees them is
    # usable.
    x_PF = pad(x_TF, (0, 0, classifier.receptive_field - 1, 0))
    logits_TC = dense_logits(classifier.network, x_PF, usable(dataset, classifier.receptive_field))
    return classifier.apply_calibration(logits_TC).softmax(-1).cpu().numpy()


def _counted(
    dataset: Dataset, role_T: np.ndarray, receptive_field: int
) -> tuple[np.ndarray, np.ndarray]:
    """bool[T] of train and of tune: labelled, with weight, and with R usable bars."""
    counted, usable_T = [], usable(dataset, receptive_field)
    for role in ("train", "tune"):
        # A row of weight 0 adds nothing to the loss, but would count among the class frequencies
        # and in the scores of tune.
        of_role_T = (role_T == ROLES.index(role)) & (dataset.y_T >= 0) & (dataset.w_T > 0)
        counted.append(of_role_T & usable_T)
        if not counted[-1].any():
            raise TrainingError(
                f"{role}: none of its {of_role_T.sum()} labelled rows has the {receptive_field} "
                "bars that the model sees, all in one segment and with every feature known; use "
                "more data, smaller bars (bars.size), a shorter receptive field (model.levels, "
                "model.se_window, model.window) or shorter feature windows"
            )
    return counted[0], counted[1]


def _identity_of(dataset: Dataset, rows: tuple[np.ndarray, np.ndarray]) -> str:
    """A hash of what is trained on, without the features: hashing those for every training would
    take too long.
    """
    digest = hashlib.sha256(repr((dataset.x_TF.shape, dataset.names)).encode())
    for values in (*rows, dataset.y_T, dataset.w_T):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _memory_advice(trainer: TrainerSpec) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"out of GPU memory with {trainer.batch_chunks} chunks of {trainer.chunk} bars at "
            f"once: lower trainer.batch_chunks (and raise trainer.accumulate, now "
            f"{trainer.accumulate}, to keep the examples per step) or trainer.chunk"
        ) from None
