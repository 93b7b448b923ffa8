"""Bars whose class follows two features, one of them only as a product that no line sees."""

from __future__ import annotations

import numpy as np

from hft.dataset.rows import Dataset

N = 3000
TRAIN_T = np.arange(N) < 1800
TUNE_T = (np.arange(N) >= 1800) & (np.arange(N) < 2400)
NAMES = ("ofi", "spread", "noise 1")


def make_dataset(*, seed=0, classes=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    x_TF = rng.normal(size=(N, 3)).astype(np.float32)
    strength = 1.5 * x_TF[:, 0] * np.sign(x_TF[:, 1])
    odds = np.exp(np.stack([np.zeros(N), strength, -strength], axis=1)[:, list(classes)])
    y_T = np.array(classes)[
        (rng.random((N, 1)) > (odds / odds.sum(1, keepdims=True)).cumsum(1)[:, :-1]).sum(1)
    ]
    x_TF[2500:2510, 2] = np.nan
    return Dataset(
        x_TF=x_TF,
        y_T=y_T,
        w_T=rng.uniform(0.5, 1.5, N).astype(np.float32),
        valid_T=np.isfinite(x_TF).all(axis=1),
        segment_T=np.zeros(N, np.int32),
        bar_T=np.arange(N),
        ts_T=np.arange(N),
        names=NAMES,
    )
