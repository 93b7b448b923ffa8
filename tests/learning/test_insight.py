"""Gates and permutation importance against plain loops and a signal whose place is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hft.dataset.rows import Dataset
from hft.learning.classifier import fit_classifier
from hft.learning.dense import BLOCK
from hft.learning.insight import _move_blocks, gate_activity, permutation_importance
from hft.learning.model.linear import Linear
from hft.learning.model.se_tcn import SeTcn

SE_TCN = SeTcn(
    kind="se_tcn",
    channels=4,
    levels=2,
    kernel=2,
    dropout=0.5,
    norm="none",
    activation="relu",
    depthwise=False,
    se_window=3,
    se_reduction=2,
)
LINEAR = Linear(kind="linear", window=5)


def make_dataset(n=900, seed=0):
    """Three features; the class follows the first one of the bar before, the others say nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    y = np.digitize(np.r_[0, x[:-1, 0]] + 0.3 * rng.normal(size=n), [-0.5, 0.5])
    x[200:203, 1] = np.nan
    valid = np.isfinite(x).all(1)
    return Dataset(
        x_TF=x,
        y_T=y,
        w_T=np.ones(n, np.float32),
        valid_T=valid,
        segment_T=np.zeros(n, np.int32),
        bar_T=np.arange(n),
        ts_T=np.arange(n),
        names=("signal", "noise", "more_noise"),
    )


@pytest.mark.parametrize("n_parts", [1, 3])
def test_gates_are_the_mean_over_the_rows_of_each_part(n_parts):
    torch.manual_seed(0)
    network, reach = SE_TCN.build(3), SE_TCN.receptive_field - 1
    x_PF = torch.randn(reach + BLOCK + 50, 3)
    rows_T = np.zeros(BLOCK + 50, bool)
    rows_T[BLOCK - 40 : BLOCK + 47 : 2] = True  # across the border of two passes
    found = gate_activity(network.train(), x_PF, rows_T, n_parts=n_parts)
    assert network.training
    assert found.shape == (2, n_parts, 4)
    network.eval()
    h_BTC, at_N = x_PF[None], np.flatnonzero(rows_T)
    with torch.no_grad():
        for block, gates_KC in zip(network.blocks, found, strict=True):
            seen = block.body[:-1](h_BTC)
            gates_NC = block.body[-1].gates(seen)[0][at_N + reach]
            torch.testing.assert_close(
                block.body[-1](seen)[0][at_N + reach], seen[0][at_N + reach] * gates_NC
            )
            for k in range(n_parts):
                part = np.arange(len(at_N)) * n_parts // len(at_N) == k
                np.testing.assert_allclose(gates_KC[k], gates_NC[part].mean(0), atol=1e-6)
            h_BTC = block(h_BTC)


def test_a_network_without_gates_has_none():
    assert gate_activity(LINEAR.build(3), torch.zeros(20, 3), np.ones(16, bool)).shape == (0, 1, 0)


def fitted_classifier(dataset):
    classifier = fit_classifier(LINEAR, {}, dataset.x_TF, seed=0).eval()
    weight = torch.zeros(3, 3, 5)
    weight[:, 0, 3] = torch.tensor([-4.0, 0.0, 4.0])
    with torch.no_grad():
        classifier.network.conv.weight.copy_(weight)
        classifier.network.conv.bias.copy_(torch.tensor([0.0, 2.0, 0.0]))
    return classifier


def test_importance_finds_the_feature_that_matters():
    dataset = make_dataset()
    classifier = fitted_classifier(dataset)
    rows_T = (np.arange(900) >= 300) & (np.arange(900) < 800)
    rises = permutation_importance(classifier, dataset, rows_T, seed=0)
    assert list(rises) == ["signal", "noise", "more_noise"]
    assert rises["signal"] > 1
    assert (rises["noise"], rises["more_noise"]) == (0.0, 0.0)  # its weights are zero
    assert rises == permutation_importance(classifier, dataset, rows_T, seed=0)
    assert rises != permutation_importance(classifier, dataset, rows_T, seed=1)


def test_importance_against_predicting_a_changed_dataset():
    dataset = make_dataset(n=400)
    classifier, rows_T = fitted_classifier(dataset), np.arange(400) >= 250
    at_N = np.arange(246, 400)  # R - 1 = 4 bars of run-up

    def log_loss(x_TF):
        with torch.no_grad():
            log_p = classifier(torch.from_numpy(x_TF[at_N])[None])[0].log_softmax(-1).numpy()
        return -log_p[4:][np.arange(150), dataset.y_T[250:]].mean()

    changed = dataset.x_TF.copy()
    changed[at_N, 0] = dataset.x_TF[at_N[_move_blocks(154, 5, seed=3)], 0]
    rises = permutation_importance(classifier, dataset, rows_T, seed=3)
    assert rises["signal"] == pytest.approx(log_loss(changed) - log_loss(dataset.x_TF), abs=1e-6)


def test_importance_leaves_unknown_bars_alone():
    dataset = make_dataset()
    rows_T = np.zeros(900, bool)
    rows_T[150:200] = rows_T[210:400] = True
    rises = permutation_importance(fitted_classifier(dataset), dataset, rows_T, seed=0)
    assert np.isfinite(list(rises.values())).all()
    assert rises["signal"] > 1


@pytest.mark.parametrize(("n", "length"), [(1000, 30), (100, 50), (100, 70), (61, 20), (2, 5)])
def test_blocks_are_long_enough_and_every_one_moves(n, length):
    order = _move_blocks(n, length, seed=0)
    assert sorted(order) == list(range(n))
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    if n >= 2 * length:
        assert np.diff(breaks, prepend=0, append=n).min() >= length
    assert (order != np.arange(n)).all()
