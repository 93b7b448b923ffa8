"""What a fold shows is computed from the fold, is skipped where nobody keeps it, and is found in
W&B's files again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hft.dataset.rows import usable
from hft.dataset.splits import ROLES
from hft.learning.fit import predict
from hft.learning.insight import permutation_importance
from hft.report import review
from hft.report.review import review_fold
from hft.statistics.classes import confusion
from hft.system.provenance import git_state, versions
from hft.tracking.logger import open_tracker
from hft.tracking.logger.wandb import Wandb
from hft.tracking.tracker import Tracker, png
from tests.learning.planted import LINEAR, TCN, fresh, planted
from tests.tracking.wandb_files import read_offline

RUN_ID = "20240101-120000-aaaa"
PREFIX = "fold-0/seed-7/"
PRIOR = np.array([0.2, 0.5, 0.3])
PNG = b"\x89PNG\r\n\x1a\n"
DATA_KEY = {"data_key": "5e6f"}
EPOCH = {
    "train/loss": 1.0,
    "train/lr": 0.01,
    "train/grad_norm": 0.5,
    "train/examples_per_s": 1e5,
    "tune/mcc": 0.1,
}
FIGURES = {
    "select/confusion_matrix",
    "select/pr_curves",
    "select/coverage",
    "select/reliability",
    "select/gates",
    "tune/importance_bars",
}
TABLES = {"select/confusion", "select/predictions", "tune/importance"}


class Recorder(Tracker):
    keeps = True

    def __init__(self):
        self.tables, self.figures = {}, {}

    def table(self, name, frame):
        self.tables[name] = frame

    def figure(self, name, figure):
        self.figures[name] = figure


class Fold:
    """A network with its initial weights and some calibration: to be shown as a fitted one is."""

    def __init__(self, model=TCN):
        dataset, role_T, _ = planted(1500)
        self.dataset = replace(dataset, ts_T=1_700_000_000_123_456_789 + np.arange(1500) * 10**9)
        self.classifier = fresh(self.dataset, role_T, model=model).eval()
        self.classifier.log_temperature.fill_(0.3)
        self.classifier.class_bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        usable_T = usable(self.dataset, self.classifier.receptive_field)
        self.rows = {role: usable_T & (role_T == ROLES.index(role)) for role in ("tune", "select")}
        self.p_T3 = predict(self.classifier, self.dataset, device="cpu")

    def show(self, tracker, p_T3=None):
        p_T3 = self.p_T3 if p_T3 is None else p_T3
        review_fold(tracker, self.classifier, self.dataset, self.rows, p_T3, PRIOR, prefix=PREFIX)
        return tracker


@pytest.fixture(scope="module")
def fold():
    torch.set_num_threads(1)
    return Fold()


def under_prefix(names):
    return {f"{PREFIX}{name}" for name in names}


def test_every_part_is_found_in_the_offline_files(fold, tmp_path):
    spec = Wandb(kind="wandb", project="hft-test", entity="", mode="offline")
    with open_tracker(spec, RUN_ID, tmp_path, config={"seed": 7}) as tracker:
        for epoch, mcc in enumerate((0.1, 0.3, 0.2)):
            tracker.epoch(
                {f"{PREFIX}{name}": value for name, value in (EPOCH | {"tune/mcc": mcc}).items()},
                epoch,
            )
        fold.show(tracker)
        fold.classifier.save(tmp_path / "weights.safetensors")
        tracker.artifact(f"{PREFIX}weights", tmp_path / "weights.safetensors", DATA_KEY)
        tracker.summary({"data/rows": 10, "labels/hold": 0.2})
    run = read_offline(tmp_path)
    assert run.config == {"seed": 7, "code": {"git": git_state(), "versions": versions()}}
    assert set(run.curves) == under_prefix(EPOCH)
    # The summary has results over all folds and seeds, and no value of a curve of one of them.
    assert under_prefix(EPOCH).isdisjoint(run.summary)
    assert {"data/rows": 10, "labels/hold": 0.2}.items() <= run.summary.items()
    assert set(run.images) == under_prefix(FIGURES)
    assert all(image.startswith(PNG) for image in run.images.values())
    assert set(run.tables) == under_prefix(TABLES)
    weights = run.artifacts[f"{RUN_ID}-fold-0-seed-7-weights"]
    assert weights["metadata"] == DATA_KEY
    assert (
        weights["files"]["weights.safetensors"].read_bytes()
        == (tmp_path / "weights.safetensors").read_bytes()
    )


def test_tables_hold_what_the_fold_is(fold):
    tables = fold.show(Recorder()).tables
    select_T = fold.rows["select"]
    p_N3, y_N = fold.p_T3[select_T], fold.dataset.y_T[select_T]
    counts = tables[f"{PREFIX}select/confusion"].drop("true").to_numpy()
    np.testing.assert_array_equal(counts, confusion(y_N, p_N3.argmax(axis=1)))
    predictions = tables[f"{PREFIX}select/predictions"]
    assert predictions.columns == ["bar", "ts", "y", "p_hold", "p_buy", "p_sell"]
    np.testing.assert_array_equal(
        predictions["bar"], fold.dataset.bar_T[select_T]
    )  # fewer than N_SHOWN: all
    np.testing.assert_array_equal(predictions["p_buy"], p_N3[:, 1])
    assert predictions["ts"][0] == "2023-11-14T22:33:50.123"
    importance = tables[f"{PREFIX}tune/importance"]
    expected = permutation_importance(fold.classifier, fold.dataset, fold.rows["tune"], seed=0)
    assert dict(importance.rows()) == expected
    assert importance["log_loss_rise"].is_sorted(descending=True)


def test_reliability_before_is_the_softmax_of_the_logits_as_trained(fold, monkeypatch):
    seen = {}

    def keep(tracker, raw_N3, p_N3, y_N, prefix):
        seen.update(raw=raw_N3, calibrated=p_N3)

    monkeypatch.setattr(review, "_show_reliability", keep)
    fold.show(Recorder())
    with torch.no_grad():
        logits_TC = fold.classifier.logits(torch.from_numpy(fold.dataset.x_TF)[None])[0].double()
    expected_T3 = logits_TC.softmax(-1).numpy()
    np.testing.assert_allclose(seen["raw"], expected_T3[fold.rows["select"]], atol=1e-6)
    np.testing.assert_array_equal(seen["calibrated"], fold.p_T3[fold.rows["select"]])
    # Of classes that are not on offer there is no forecast, before as after; where there is none at
    # all, no row.
    offered_T3 = fold.p_T3.copy()
    offered_T3[:, 2] = 0
    offered_T3[::2] = np.nan
    fold.show(Recorder(), offered_T3)
    at_T = fold.rows["select"] & (np.arange(len(offered_T3)) % 2 == 1)
    expected_N3 = expected_T3[at_T] * (1, 1, 0)
    np.testing.assert_allclose(
        seen["raw"], expected_N3 / expected_N3.sum(1, keepdims=True), atol=1e-6
    )


def test_long_periods_are_cut_and_the_title_says_so(fold, monkeypatch):
    monkeypatch.setattr(review, "IMPORTANCE_ROWS", 100)
    monkeypatch.setattr(review, "N_SHOWN", 50)
    shown = fold.show(Recorder())
    n_tune = fold.rows["tune"].sum()
    title = shown.figures[f"{PREFIX}tune/importance_bars"].axes[0].get_title(loc="left")
    assert title == f"{PREFIX}tune: what each feature is worth (last 100 rows of {n_tune})"
    bars = shown.tables[f"{PREFIX}select/predictions"]["bar"].to_numpy()
    at_N = np.flatnonzero(fold.rows["select"])
    assert (len(bars), bars[0], bars[-1]) == (50, at_N[0], at_N[-1])


def test_a_network_without_gates_shows_the_rest():
    shown = Fold(LINEAR).show(Recorder())
    assert set(shown.figures) == under_prefix(FIGURES - {"select/gates"})
    assert set(shown.tables) == under_prefix(TABLES)


def test_without_a_forecast_on_select_only_tune_is_shown(fold):
    shown = fold.show(Recorder(), np.full_like(fold.p_T3, np.nan))
    assert set(shown.figures) == under_prefix({"tune/importance_bars"})
    assert png(shown.figures[f"{PREFIX}tune/importance_bars"]).startswith(PNG)


def test_nothing_is_computed_for_a_tracker_that_keeps_nothing():
    review_fold(Tracker(), None, None, {}, None, None, prefix="")
