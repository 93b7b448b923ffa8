"""Learning, honesty and repeatability of a fit; everything on one thread and a small planted market
of features.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from hft.dataset.splits import ROLES
from hft.learning.classifier import fit_classifier, load_classifier
from hft.learning.dense import Chunks
from hft.learning.fit import fit, predict
from hft.learning.learner import Learner
from hft.learning.loss import LossSpec
from hft.learning.trainer import TrainingError
from hft.statistics.classes import classification_metrics
from tests.learning.planted import LOSS, TCN, TRANSFORMS, adamw, cpu, fresh, planted, run


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
        x_TF=np.where(later_T[:, None], rng.normal(size=dataset.x_TF.shape), dataset.x_TF).astype(
            np.float32
        ),
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
    total, weights, counted = torch.zeros((), dtype=torch.float64), 0.0, 0
    for t in np.flatnonzero(role_T == ROLES.index("train")):
        window = slice(t - 12, t + 1)
        if (
            t < 12
            or dataset.y_T[t] < 0
            or not dataset.valid_T[window].all()
            or np.ptp(dataset.segment_T[window])
        ):
            continue
        logits_C = initial.logits(torch.from_numpy(dataset.x_TF[None, window]))[0, -1].double()
        total = total - float(dataset.w_T[t]) * logits_C.log_softmax(-1)[dataset.y_T[t]]
        weights, counted = weights + float(dataset.w_T[t]), counted + 1
    loss = total / weights
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in initial.network.parameters()])
    small = dict(model=model, optim=adamw(lr=1e-12), epochs=1, chunk=50, clip_norm=1e-6)
    for batch_chunks, accumulate in ((12, 1), (3, 4), (1, 12)):  # 9 or 10 chunks in one step
        _, result = run(
            tmp_path, dataset, role_T, batch_chunks=batch_chunks, accumulate=accumulate, **small
        )
        metrics = result.history[0]
        assert result.class_counts.sum() == counted
        assert metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert (
            metrics["train/grad_norm"]
            == metrics["train/grad_norm_max"]
            == pytest.approx(norm.item(), rel=1e-4)
        )


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"ema": 0.9, "precision": "bf16"}], ids=str)
def test_stops_after_patience_and_keeps_the_best_epoch(tmp_path, changes):
    """Labels of tune are noise, so more training only hurts; the stored weights give the best
    epoch's numbers.
    """
    dataset, role_T, _ = planted(2000)
    tune_T = role_T == ROLES.index("tune")
    dataset.y_T[tune_T] = np.random.default_rng(0).permutation(dataset.y_T[tune_T])
    _, result = run(
        tmp_path, dataset, role_T, model=TCN, optim=adamw(lr=0.03), epochs=40, patience=2, **changes
    )
    scores = [metrics["tune/log_loss"] for metrics in result.history]
    assert result.stopped == "patience"
    assert result.best_epoch == int(np.argmin(scores)) == len(scores) - 3
    loaded = load_classifier(tmp_path / "weights.safetensors", TCN, TRANSFORMS, n_features=4)
    p_TC = predict(loaded, dataset, device="cpu")
    prior_C = result.class_counts / result.class_counts.sum()
    again = classification_metrics(p_TC[tune_T], dataset.y_T[tune_T], prior_C=prior_C)
    assert {f"tune/{k}": v for k, v in again.items()}.items() <= result.history[
        result.best_epoch
    ].items()


def test_averaged_weights_are_what_is_scored_and_saved(tmp_path, monkeypatch):
    """ema_t = d ema_(t-1) + (1 - d) w_t, d growing as (1 + t) / (10 + t) up to the decay, from the
    initial weights.
    """
    dataset, role_T, _ = planted()
    weights, expected = [], None

    def end_step(learner, end=Learner.end_step):
        weights.append(torch.cat([p.detach().flatten() for p in learner.parameters]))
        end(learner)

    monkeypatch.setattr(Learner, "end_step", end_step)
    expected = torch.cat(
        [p.detach().flatten() for p in fresh(dataset, role_T).network.parameters()]
    )
    classifier, result = run(tmp_path, dataset, role_T, ema=0.5, epochs=2)
    for t, weight in enumerate(weights[: (result.best_epoch + 1) * 8]):
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight
    found = torch.cat([p.detach().flatten() for p in classifier.network.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, weights[-1])


def test_bf16_changes_little(tmp_path):
    dataset, role_T, _ = planted()
    losses = [
        run(tmp_path, dataset, role_T, model=TCN, precision=p)[1].history[-1]["tune/loss"]
        for p in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's compiler itself
def test_compiled_learns_the_same(tmp_path):
    dataset, role_T, _ = planted()
    losses = [
        run(tmp_path, dataset, role_T, compile=c, epochs=2)[1].history[-1]["tune/loss"]
        for c in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_one_batch_can_be_learnt_by_heart(tmp_path):
    dataset, role_T, _ = planted()
    model = TCN.model_copy(update={"dropout": 0.0, "channels": 32})
    rows = dict(chunk=64, batch_chunks=1, limit_batches=1, overfit=True)
    _, result = run(tmp_path, dataset, role_T, model=model, epochs=150, patience=150, **rows)
    assert result.history[-1]["train/loss"] < 0.01
    assert result.class_counts.sum() > 1700  # weights and priors are those of all rows


def test_limited_batches_and_where_their_time_goes(tmp_path):
    dataset, role_T, _ = planted()
    _, result = run(tmp_path, dataset, role_T, limit_batches=2, epochs=1, profile=True)
    _, whole = run(tmp_path, dataset, role_T, epochs=1)
    assert result.history[0]["train/loss"] != whole.history[0]["train/loss"]
    table = (tmp_path / "profile.txt").read_text()
    assert table.startswith("1 steps of training\n")
    assert "aten::" in table
    assert "Self CPU" in table


def test_the_learning_rate_follows_the_schedule_over_all_steps(tmp_path):
    dataset, role_T, _ = planted()
    _, result = run(
        tmp_path, dataset, role_T, optim=adamw(schedule="cosine", warmup=0.25)
    )  # 3 epochs of 8 steps
    expected = [0.01 * np.cos(np.pi / 2 * (step - 6) / 18) ** 2 for step in (7, 15, 23)]
    assert [metrics["train/lr"] for metrics in result.history] == pytest.approx(expected)


def test_a_metric_that_is_better_when_higher(tmp_path):
    dataset, role_T, _ = planted()
    _, result = run(tmp_path, dataset, role_T, monitor="tune/macro_f1", epochs=4)
    assert result.best_epoch == int(
        np.argmax([metrics["tune/macro_f1"] for metrics in result.history])
    )
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

    classifier = fresh(dataset, role_T, model=TCN)
    result = fit(
        classifier,
        dataset,
        role_T,
        loss=LOSS,
        optim=adamw(),
        trainer=cpu(),
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
        np.testing.assert_allclose(
            p_TC[t], classifier(window)[0, -1].softmax(-1).detach(), atol=1e-6
        )


@pytest.mark.parametrize("batch_chunks", [1, 3, 100])
def test_an_epoch_visits_every_row_once_in_a_fixed_number_of_batches(batch_chunks):
    rows_T = np.random.default_rng(0).random(500) < 0.02
    rows_T[200:300] = True
    chunks = Chunks(rows_T, chunk=16, batch_chunks=batch_chunks, seed=5)
    orders = []
    for epoch in range(30):
        batches = chunks.batches(epoch)
        assert len(batches) == chunks.n_batches
        assert all(1 <= len(batch) <= 2 * batch_chunks for batch in batches)
        assert sum(chunks.count_rows(batch) for batch in batches) == rows_T.sum()
        starts_N = np.concatenate(batches)
        assert all(np.any(rows_T[max(s, 0) : s + 16]) for s in starts_N)
        visits_T = np.zeros(600, int)
        np.add.at(visits_T, (starts_N[:, None] + np.arange(16) + 50).ravel(), 1)
        assert set(visits_T[50:550][rows_T]) == {1}
        orders.append(tuple(starts_N))
    assert len(set(orders)) == 30
    again = Chunks(rows_T, chunk=16, batch_chunks=batch_chunks, seed=5)
    assert tuple(np.concatenate(again.batches(0))) == orders[0]


class NanLoss(torch.nn.Module):
    def forward(self, logits_NC, y_N):
        return logits_NC.sum(1) * torch.nan


class Broken(LossSpec):
    def build(self, class_counts):
        return NanLoss()


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(tmp_path):
    dataset, role_T, _ = planted(500)
    with pytest.raises(
        TrainingError, match=r"loss is nan at epoch 0, batch 0: likely causes .* optim\.lr"
    ):
        run(tmp_path, dataset, role_T, loss=Broken(kind="broken"))
    assert not list(tmp_path.iterdir())


def test_out_of_gpu_memory_names_the_settings_to_lower(tmp_path, monkeypatch):
    def forward(self, x_BTF):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("hft.learning.model.linear.Network.forward", forward)
    dataset, role_T, _ = planted()
    message = (
        r"out of GPU memory with 4 chunks of 64 bars at once: "
        r"lower trainer\.batch_chunks .* or trainer\.chunk"
    )
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, dataset, role_T)


@pytest.mark.parametrize("role", ["train", "tune"])
def test_too_few_bars_for_the_receptive_field(tmp_path, role):
    dataset, role_T, _ = planted(500)
    dataset.valid_T[np.flatnonzero(role_T == ROLES.index(role))[::10]] = False
    message = (
        rf"{role}: none of its \d+ labelled rows has the 13 bars .*; use more data, smaller bars"
    )
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, dataset, role_T, model=TCN)


def test_importing_the_module_leaves_lightning_out():
    code = "import sys, hft.learning.fit; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
