"""Learning, honesty and repeatability of a fit; everything on one thread and a small planted market of features."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
import yaml

from hft.dataset import Dataset
from hft.loss import LossSpec
from hft.loss.cross_entropy import CrossEntropy
from hft.model import Chunks, fit_classifier, load_classifier
from hft.model.linear import Linear
from hft.model.se_tcn import SeTcn
from hft.spec import Kind, Room, Spec, SpecError, parse
from hft.splits import ROLES
from hft.statistics import classification_metrics
from hft.training import AdamW, Cpu, Gpu, TrainingError, fit, predict
from hft.transforms.standardize import Standardize

TRANSFORMS = {"standardize": Standardize(kind="standardize", clip=8.0)}
LINEAR = Linear(kind="linear", window=3)
TCN = SeTcn(
    kind="se_tcn", channels=8, levels=2, kernel=2, dropout=0.2, norm="weight", se_window=4, se_reduction=2
)  # R = 13
CPU = dict(
    kind="cpu", epochs=3, chunk=64, batch_chunks=4, clip_norm=1.0, patience=3, monitor="tune/log_loss", threads=1,
    progress=False,
)  # fmt: skip


def planted(n_bars=3000, *, seed=0):
    """(dataset, roles, Bayes probabilities): y follows two features of this bar and the one before, p known."""
    rng = np.random.default_rng(seed)
    x_TF = rng.normal(50, 3, (n_bars, 4)).astype(np.float32)
    signal_T = (x_TF[:, 0] - 50) / 3
    signal_T[1:] += (x_TF[:-1, 1] - 50) / 3
    odds_TC = np.exp(np.stack([np.zeros(n_bars), signal_T, -signal_T], axis=1))
    p_TC = odds_TC / odds_TC.sum(1, keepdims=True)
    y_T = (rng.random((n_bars, 1)) > p_TC.cumsum(1)).sum(1).clip(0, 2)
    role_T = np.zeros(n_bars, np.int8)
    for role, (first, last) in {"train": (0, 0.6), "tune": (0.62, 0.8), "select": (0.82, 1)}.items():
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


def run(folder, dataset, role_T, *, model=LINEAR, seed=0, lr=0.01, loss=None, on_epoch=None, **trainer):
    x_NF = dataset.x_TF[role_T == ROLES.index("train")]
    classifier = fit_classifier(model, TRANSFORMS, x_NF, seed=seed)
    result = fit(
        classifier,
        dataset,
        role_T,
        loss=loss or CrossEntropy(kind="cross_entropy"),
        optim=AdamW(kind="adamw", lr=lr, weight_decay=0.01),
        trainer=Cpu(**CPU | trainer),
        seed=seed,
        folder=folder,
        on_epoch=on_epoch or (lambda epoch, metrics: False),
    )
    return classifier, result


def log_loss(p_TC, y_T, rows_T):
    return -np.log(p_TC[rows_T, y_T[rows_T]]).mean()


def test_learns_a_planted_signal_and_never_beats_bayes(tmp_path):
    dataset, role_T, bayes_TC = planted(20_000)
    classifier, result = run(tmp_path, dataset, role_T, epochs=12)
    rows_T = role_T == ROLES.index("select")
    frequencies_C = result.class_counts / result.class_counts.sum()
    chance = -np.log(frequencies_C[dataset.y_T[rows_T]]).mean()
    best = log_loss(bayes_TC, dataset.y_T, rows_T)
    found = log_loss(predict(classifier, dataset, device="cpu"), dataset.y_T, rows_T)
    assert 0.95 < (chance - found) / (chance - best) < 1.0


def test_shuffled_labels_give_no_skill(tmp_path):
    dataset, role_T, _ = planted(12_000)
    dataset = dataclasses.replace(dataset, y_T=np.random.default_rng(1).permutation(dataset.y_T))
    classifier, result = run(tmp_path, dataset, role_T, model=TCN)
    rows_T = role_T == ROLES.index("select")
    frequencies_C = result.class_counts / result.class_counts.sum()
    chance = -np.log(frequencies_C[dataset.y_T[rows_T]]).mean()
    found = log_loss(predict(classifier, dataset, device="cpu"), dataset.y_T, rows_T)
    assert chance - 0.001 < found < chance + 0.01


def test_one_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    dataset, role_T, _ = planted()
    results, states = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))  # the caller's generator plays no part
        classifier, result = run(tmp_path, dataset, role_T, model=TCN, seed=seed)
        results.append(result.history)
        states.append(classifier.state_dict())
    assert results[0] == results[1] != results[2]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_rows_of_other_roles_and_without_label_play_no_part(tmp_path):
    dataset, role_T, _ = planted()
    rng = np.random.default_rng(7)
    role_T[100:160] = 0
    later_T = np.arange(len(role_T)) >= int(0.82 * len(role_T))
    changed = dataclasses.replace(
        dataset,
        x_TF=np.where(later_T[:, None], rng.normal(size=dataset.x_TF.shape), dataset.x_TF).astype(np.float32),
        y_T=np.where((role_T == 0) | later_T, rng.integers(-1, 3, len(role_T)), dataset.y_T),
    )
    before, after = (run(tmp_path, d, role_T)[0].state_dict() for d in (dataset, changed))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_loss_is_the_weighted_mean_over_the_windows_of_counted_rows(tmp_path):
    """With a step of nothing the epoch's loss is that of the initial weights, window by window."""
    dataset, role_T, _ = planted(700)
    rng = np.random.default_rng(3)
    dataset.w_T[:] = rng.uniform(0.1, 3, 700)
    dataset.y_T[::9] = -1
    dataset.x_TF[200] = np.nan
    dataset.valid_T[200] = False
    dataset.segment_T[300:] = 1
    model = TCN.model_copy(update={"dropout": 0.0})
    initial = fit_classifier(model, TRANSFORMS, dataset.x_TF[role_T == 1], seed=0).eval()
    total, weights, counted = 0.0, 0.0, 0
    for t in np.flatnonzero(role_T == ROLES.index("train")):
        window = slice(t - 12, t + 1)
        if t < 12 or dataset.y_T[t] < 0 or not dataset.valid_T[window].all() or np.ptp(dataset.segment_T[window]):
            continue
        logits_C = initial.logits(torch.from_numpy(dataset.x_TF[None, window]))[0, -1].double()
        total -= float(dataset.w_T[t]) * float(logits_C.log_softmax(-1)[dataset.y_T[t]].detach())
        weights, counted = weights + float(dataset.w_T[t]), counted + 1
    _, result = run(tmp_path, dataset, role_T, model=model, lr=1e-12, epochs=1, chunk=50)
    assert result.class_counts.sum() == counted
    assert result.history[0]["train/loss"] == pytest.approx(total / weights, rel=1e-5)


def test_stops_after_patience_and_keeps_the_best_epoch(tmp_path):
    """Labels of tune are noise, so more training only hurts; the stored weights give the best epoch's numbers."""
    dataset, role_T, _ = planted(2000)
    tune_T = role_T == ROLES.index("tune")
    dataset.y_T[tune_T] = np.random.default_rng(0).permutation(dataset.y_T[tune_T])
    _, result = run(tmp_path, dataset, role_T, model=TCN, epochs=40, patience=2, lr=0.03)
    scores = [metrics["tune/log_loss"] for metrics in result.history]
    assert result.stopped == "patience"
    assert result.best_epoch == int(np.argmin(scores)) == len(scores) - 3
    loaded = load_classifier(tmp_path / "weights.safetensors", TCN, TRANSFORMS, n_features=4)
    p_TC = predict(loaded, dataset, device="cpu")
    prior_C = result.class_counts / result.class_counts.sum()
    again = classification_metrics(p_TC[tune_T], dataset.y_T[tune_T], prior_C=prior_C)
    assert {f"tune/{k}": v for k, v in again.items()}.items() <= result.history[result.best_epoch].items()
    assert result.n_tune == tune_T.sum()


def test_a_metric_that_is_better_when_higher(tmp_path):
    dataset, role_T, _ = planted()
    _, result = run(tmp_path, dataset, role_T, monitor="tune/macro_f1", epochs=4)
    assert result.best_epoch == int(np.argmax([metrics["tune/macro_f1"] for metrics in result.history]))
    assert result.stopped == "epochs"
    assert result.examples_per_s > 0


def test_the_callback_sees_calibrated_probabilities_and_can_stop(tmp_path):
    dataset, role_T, _ = planted()
    tune_T = role_T == ROLES.index("tune")
    seen = []

    def on_epoch(epoch, metrics):
        found = log_loss(predict(classifier, dataset, device="cpu"), dataset.y_T, tune_T)
        assert found == pytest.approx(metrics["tune/log_loss"], rel=1e-12)
        seen.append(epoch)
        return epoch == 1

    classifier = fit_classifier(TCN, TRANSFORMS, dataset.x_TF[role_T == 1], seed=0)
    result = fit(
        classifier,
        dataset,
        role_T,
        loss=CrossEntropy(kind="cross_entropy"),
        optim=AdamW(kind="adamw", lr=0.01, weight_decay=0.01),
        trainer=Cpu(**CPU),
        seed=0,
        folder=tmp_path,
        on_epoch=on_epoch,
    )
    assert (seen, result.stopped, len(result.history)) == ([0, 1], "callback", 2)
    _, undisturbed = run(tmp_path, dataset, role_T, model=TCN)
    assert undisturbed.history[:2] == result.history


def test_predictions_are_nan_exactly_where_a_window_is_not_usable(tmp_path):
    dataset, role_T, _ = planted(9000)
    dataset.x_TF[5000, 2] = np.nan
    dataset.valid_T[5000] = False
    dataset.segment_T[7000:] = 1
    classifier, _ = run(tmp_path, dataset, role_T, model=TCN, epochs=1)
    p_TC = predict(classifier, dataset, device="cpu")
    known_T = np.ones(9000, bool)
    for first in (0, 5001, 7000):
        known_T[first : first + 12] = False
    known_T[5000] = False
    np.testing.assert_array_equal(np.isfinite(p_TC).all(1), known_T)
    np.testing.assert_allclose(p_TC[known_T].sum(1), 1, atol=1e-12)
    for t in (12, 4096, 4107, 8999):  # at the joints of the blocks too
        window = torch.from_numpy(dataset.x_TF[None, t - 12 : t + 1])
        np.testing.assert_allclose(p_TC[t], classifier(window)[0, -1].softmax(-1).detach(), atol=1e-6)


@pytest.mark.parametrize("batch_chunks", [1, 3, 100])
def test_an_epoch_visits_every_row_once_in_a_fixed_number_of_batches(batch_chunks):
    rows_T = np.random.default_rng(0).random(500) < 0.02
    rows_T[200:300] = True
    loader = Chunks(rows_T, chunk=16, batch_chunks=batch_chunks, seed=5)
    orders = []
    for epoch in range(30):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(1 <= len(batch) <= 2 * batch_chunks for batch in batches)
        starts_N = torch.cat(batches).numpy()
        assert all(np.any(rows_T[max(s, 0) : s + 16]) for s in starts_N)
        visits_T = np.zeros(600, int)
        np.add.at(visits_T, (starts_N[:, None] + np.arange(16) + 50).ravel(), 1)
        assert set(visits_T[50:550][rows_T]) == {1}
        orders.append(tuple(starts_N))
    assert len(set(orders)) == 30
    again = Chunks(rows_T, chunk=16, batch_chunks=batch_chunks, seed=5)
    assert tuple(torch.cat(list(again)).tolist()) == orders[0]


class NanLoss(torch.nn.Module):
    def forward(self, logits_NC, y_N):
        return logits_NC.sum(1) * torch.nan


class Broken(LossSpec):
    def build(self, class_counts):
        return NanLoss()


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(tmp_path):
    dataset, role_T, _ = planted(500)
    with pytest.raises(TrainingError, match=r"loss is nan at epoch 0, batch 0: likely causes .* optim\.lr"):
        run(tmp_path, dataset, role_T, loss=Broken(kind="broken"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["train", "tune"])
def test_too_few_bars_for_the_receptive_field(tmp_path, role):
    dataset, role_T, _ = planted(500)
    dataset.valid_T[np.flatnonzero(role_T == ROLES.index(role))[::10]] = False
    message = rf"{role}: none of its \d+ labelled rows has the 13 bars .*; use more data, smaller bars"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, dataset, role_T, model=TCN)


def test_gpu_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"trainer=gpu: .* sees no CUDA GPU; use trainer=cpu"):
        Gpu(**CPU | {"kind": "gpu"}).device()


class Config(Spec):
    optim: Annotated[Kind, Room("hft.training", base="OptimSpec")]
    trainer: Annotated[Kind, Room("hft.training", base="TrainerSpec")]


def shipped(group):
    return {path.stem: yaml.safe_load(path.read_text()) for path in Path(f"conf/{group}").glob("*.yaml")}


def test_every_kind_ships_its_yaml_and_parses():
    for group, base in (("optim", "OptimSpec"), ("trainer", "TrainerSpec")):
        assert {plain["kind"] for plain in shipped(group).values()} == set(Room("hft.training", base=base).specs())
    for optim in shipped("optim").values():
        for trainer in shipped("trainer").values():
            parse(Config, {"optim": optim, "trainer": trainer})


def test_an_unknown_monitor_gets_a_suggestion():
    plain = {"optim": shipped("optim")["adamw"], "trainer": CPU | {"monitor": "tune/macrof1"}}
    with pytest.raises(SpecError, match=r"trainer\.monitor: .* got 'tune/macrof1', did you mean 'tune/macro_f1'\?"):
        parse(Config, plain)


def test_weight_decay_spares_biases():
    network = TCN.build(4)
    decayed, spared = AdamW(kind="adamw", lr=0.1, weight_decay=0.5).build(network).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert {id(p) for p in spared["params"]} == {id(p) for p in biases}


def test_importing_the_module_leaves_lightning_out():
    code = "import sys, hft.training; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
