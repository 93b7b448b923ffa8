"""Planted bars of known p(y|x): how much of what can be known does training reach, and never more
of it.

In: features of unit variance, a signal of the last bars, p(y|x) by softmax. Out: of the log-loss
gap between the class frequencies and the Bayes forecast, the share that a model reaches on rows
held out of training and calibration. The reference is p itself; labels are drawn from it
independently, so the loss beyond Bayes has the standard error of a plain mean of rows. To add a
signal: a function x_TF -> s_T in SIGNALS.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hft.dataset.rows import Dataset
from hft.dataset.splits import ROLES
from hft.learning.fit import predict
from hft.learning.model.linear import Linear
from hft.learning.model.se_tcn import SeTcn
from hft.schema import BUY, SELL
from hft.statistics.classes import log_losses
from tests.learning.planted import adamw, run, shipped

N_TRAIN, EPOCHS = 200_000, 5
BUDGET = 1_000_000  # examples that a training may see
N_SEEDS = 3
N_FEATURES = 8
STRENGTH = (
    0.2  # sd of the log odds of buy to hold: Bayes is 0.013 nats better than class frequencies
)
ROLE_ENDS = {"train": 0.6, "tune": 0.75, "select": 1.0}  # shares of the bars
OPTIM = {"schedule": "one_cycle", "warmup": 0.3}
TRAINER = {"epochs": EPOCHS, "patience": EPOCHS, "chunk": 512, "batch_chunks": 4}
LINEAR = (shipped("model/linear", Linear, window=4), 0.02)  # and the largest learning rate
SE_TCN = (
    shipped(
        "model/se_tcn",
        SeTcn,
        channels=16,
        levels=2,
        kernel=2,
        dropout=0.0,
        se_window=4,
        se_reduction=4,
    ),
    0.01,
)  # R = 13
# Of a few settings these were chosen on seeds 10 to 12: 0.960 of the additive signal with se_tcn,
# 0.980 with linear.


def additive(x_TF: np.ndarray) -> np.ndarray:
    """Two features of this bar and one of the bar before."""
    return x_TF[:, 0] + x_TF[:, 1] / 2 - np.roll(x_TF[:, 2], 1)


def product(x_TF: np.ndarray) -> np.ndarray:
    """No feature alone, at any lag, says anything."""
    return x_TF[:, 0] * np.roll(x_TF[:, 1], 1)


SIGNALS = {"additive": additive, "product": product}


@dataclass(frozen=True)
class Bayes:
    """Losses of the scored rows N of one seed or of several, in nats."""

    prior_N: np.ndarray
    bayes_N: np.ndarray
    model_N: np.ndarray

    @property
    def share(self) -> float:
        return float((self.prior_N - self.model_N).mean() / (self.prior_N - self.bayes_N).mean())

    @property
    def beyond_z(self) -> float:
        """Standard errors by which the model is better than the best possible forecast."""
        beyond_N = self.bayes_N - self.model_N
        return float(beyond_N.mean() / (beyond_N.std(ddof=1) / np.sqrt(len(beyond_N))))


def make_market(signal: str, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """(dataset, role_T, p_TC). Features are sums of three draws, so neighbouring bars correlate by
    2/3.
    """
    n_bars, rng = round(N_TRAIN / ROLE_ENDS["train"]), np.random.default_rng(seed)
    draws_TF = rng.standard_normal((n_bars + 2, N_FEATURES))
    x_TF = ((draws_TF[2:] + draws_TF[1:-1] + draws_TF[:-2]) / np.sqrt(3)).astype(np.float32)
    signal_T = SIGNALS[signal](x_TF)
    signal_T = STRENGTH * signal_T / signal_T.std()
    odds_TC = np.exp(np.stack([np.zeros(n_bars), signal_T, -signal_T], axis=1))
    p_TC = odds_TC / odds_TC.sum(1, keepdims=True)
    y_T = (rng.random((n_bars, 1)) > p_TC.cumsum(1)).sum(1).clip(0, 2)
    role_T, start = (
        np.zeros(n_bars, np.int8),
        SE_TCN[0].receptive_field,
    )  # the rolled first bars are out
    for role, end in ROLE_ENDS.items():
        role_T[start : round(end * n_bars)] = ROLES.index(role)
        start = round(end * n_bars) + SE_TCN[0].receptive_field
    dataset = Dataset(
        x_TF=x_TF,
        y_T=y_T,
        w_T=np.ones(n_bars, np.float32),
        valid_T=np.ones(n_bars, bool),
        segment_T=np.zeros(n_bars, np.int32),
        bar_T=np.arange(n_bars),
        ts_T=np.arange(n_bars),
        names=tuple(f"x{i}" for i in range(N_FEATURES)),
    )
    return dataset, role_T, p_TC


def leak(dataset: Dataset) -> Dataset:
    """A feature that saw a little of the label."""
    x_TF = dataset.x_TF.copy()
    x_TF[:, -1] += 0.2 * ((dataset.y_T == BUY) - 1.0 * (dataset.y_T == SELL))
    return replace(dataset, x_TF=x_TF)


def score_seed(
    signal: str, model: tuple, seed: int, folder: Path, *, meddle=lambda dataset: dataset
) -> Bayes:
    """Trains on train, calibrates and chooses the epoch on tune, and is scored on select."""
    spec, lr = model
    dataset, role_T, p_TC = make_market(signal, seed)
    dataset = meddle(dataset)
    classifier, result = run(
        folder, dataset, role_T, model=spec, seed=seed, optim=adamw(lr=lr, **OPTIM), **TRAINER
    )
    assert len(result.history) * result.class_counts.sum() <= BUDGET
    scored_T = role_T == ROLES.index("select")
    y_N, prior_C = dataset.y_T[scored_T], result.class_counts / result.class_counts.sum()
    p_NC = predict(classifier, dataset, device="cpu")[scored_T]
    return Bayes(-np.log(prior_C[y_N]), log_losses(p_TC[scored_T], y_N), log_losses(p_NC, y_N))


def score_seeds(signal: str, model: tuple, folder: Path, **kwargs) -> list[Bayes]:
    return [score_seed(signal, model, seed, folder, **kwargs) for seed in range(N_SEEDS)]


def pool(seeds: list[Bayes]) -> Bayes:
    return Bayes(
        *(np.concatenate([getattr(s, n) for s in seeds]) for n in ("prior_N", "bayes_N", "model_N"))
    )


def report(seeds: list[Bayes]) -> None:
    """For people: `pytest -s`."""
    shares, pooled = [f"{s.share:.3f}" for s in seeds], pool(seeds)
    gap = (pooled.prior_N - pooled.bayes_N).mean()
    sys.stdout.write(
        f"\n{', '.join(shares)} of the Bayes gap of {gap:.4f} nats, {pooled.beyond_z:.1f} standard "
        f"errors beyond it, {len(pooled.bayes_N):,} rows\n"
    )


@pytest.mark.parametrize(
    "model",
    [pytest.param(LINEAR, id="linear"), pytest.param(SE_TCN, id="se_tcn", marks=pytest.mark.slow)],
)
def test_reaches_nine_tenths_of_an_additive_signal_and_not_beyond_bayes(model, tmp_path):
    seeds = score_seeds("additive", model, tmp_path)
    report(seeds)
    assert np.mean([s.share for s in seeds]) >= 0.9
    assert pool(seeds).beyond_z <= 2


@pytest.mark.slow
@pytest.mark.parametrize("model", [LINEAR, SE_TCN], ids=["linear", "se_tcn"])
def test_reports_its_share_of_an_interaction_and_is_not_beyond_bayes(model, tmp_path):
    seeds = score_seeds("product", model, tmp_path)
    report(seeds)
    assert pool(seeds).beyond_z <= 2


def test_a_trace_of_the_label_is_beyond_bayes(tmp_path):
    """The upper bound has the power to see a leak of a fifth of a feature's standard deviation, in
    one seed.
    """
    assert score_seed("additive", LINEAR, 0, tmp_path, meddle=leak).beyond_z > 2
