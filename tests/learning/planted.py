"""A small planted market of features, and a fit on it: for the tests of training and of resuming.

Every spec is the shipped YAML with changes, on one thread.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from hft.dataset.rows import Dataset
from hft.dataset.splits import ROLES
from hft.dataset.transforms.standardize import Standardize
from hft.learning.classifier import fit_classifier
from hft.learning.fit import fit
from hft.learning.loss.cross_entropy import CrossEntropy
from hft.learning.model.linear import Linear
from hft.learning.model.se_tcn import SeTcn
from hft.learning.optim.adamw import AdamW
from hft.learning.trainer.cpu import Cpu

CONF = Path(__file__).parents[2] / "conf"


def shipped(path, cls, **changes):
    """The spec of conf/<path>.yaml with changes."""
    plain = yaml.safe_load((CONF / f"{path}.yaml").read_text()) | changes
    return cls.model_validate_json(json.dumps(plain))


def adamw(**changes):
    return shipped("optim/adamw", AdamW, **{"lr": 0.01} | changes)


def cpu(**changes):
    small = {
        "epochs": 3,
        "chunk": 64,
        "batch_chunks": 4,
        "patience": 3,
        "threads": 1,
        "progress": False,
    }
    return shipped("trainer/cpu", Cpu, **small | changes)


TRANSFORMS = {"standardize": Standardize(kind="standardize", clip=8.0)}
LOSS = CrossEntropy(kind="cross_entropy", alpha="none", beta=1.0, label_smoothing=0.0)
LINEAR = shipped("model/linear", Linear, window=3)
TCN = shipped(
    "model/se_tcn",
    SeTcn,
    channels=8,
    levels=2,
    kernel=2,
    dropout=0.2,
    norm="weight",
    se_window=4,
    se_reduction=2,
)  # R = 13


def planted(n_bars=3000, *, seed=0):
    """(dataset, roles, Bayes probabilities): y follows two features of this bar and the one before,
    p known.
    """
    rng = np.random.default_rng(seed)
    x_TF = rng.normal(50, 3, (n_bars, 4)).astype(np.float32)
    signal_T = (x_TF[:, 0] - 50) / 3
    signal_T[1:] += (x_TF[:-1, 1] - 50) / 3
    odds_TC = np.exp(np.stack([np.zeros(n_bars), signal_T, -signal_T], axis=1))
    p_TC = odds_TC / odds_TC.sum(1, keepdims=True)
    y_T = (rng.random((n_bars, 1)) > p_TC.cumsum(1)).sum(1).clip(0, 2)
    role_T = np.zeros(n_bars, np.int8)
    for role, (first, last) in {
        "train": (0, 0.6),
        "tune": (0.62, 0.8),
        "select": (0.82, 1),
    }.items():
        role_T[int(first * n_bars) : int(last * n_bars)] = ROLES.index(role)
    dataset = Dataset(
        x_TF=x_TF,
        y_T=y_T,
        w_T=np.ones(n_bars, np.float32),
        valid_T=np.ones(n_bars, bool),
        segment_T=np.zeros(n_bars, np.int32),
        bar_T=np.arange(n_bars),
        ts_T=np.arange(n_bars),
        names=("a", "b", "c", "d"),
    )
    return dataset, role_T, p_TC


def fresh(dataset, role_T, *, model=LINEAR, seed=0):
    return fit_classifier(
        model, TRANSFORMS, dataset.x_TF[role_T == ROLES.index("train")], seed=seed
    )


def run(
    folder,
    dataset,
    role_T,
    *,
    model=LINEAR,
    seed=0,
    loss=LOSS,
    optim=None,
    on_epoch=None,
    resume=False,
    **trainer,
):
    """(classifier, result) of a fit from fresh weights; further arguments are the trainer's."""
    classifier = fresh(dataset, role_T, model=model, seed=seed)
    result = fit(
        classifier,
        dataset,
        role_T,
        loss=loss,
        optim=optim or adamw(),
        trainer=cpu(**trainer),
        seed=seed,
        folder=folder,
        on_epoch=on_epoch or (lambda epoch, metrics: False),
        resume=resume,
    )
    return classifier, result
