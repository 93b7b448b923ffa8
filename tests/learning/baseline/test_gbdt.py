"""Against LightGBM's own reading of the file; damaged and hostile files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from hft.learning.baseline import BaselineError
from hft.learning.baseline.gbdt import FILE, Gbdt
from hft.statistics.classes import log_losses
from hft.system.files import FileError
from tests.learning.baseline.planted import NAMES, TRAIN_T, TUNE_T, make_dataset

SPEC = Gbdt(
    **yaml.safe_load(Path("conf/baseline/gbdt.yaml").read_text()) | {"rounds": 60, "min_rows": 20}
)
TEST_T = np.arange(3000) >= 2520


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gbdt")
    SPEC.fit(make_dataset(), TRAIN_T, TUNE_T, seed=0, folder=folder)
    return (folder / FILE).read_text()


def load(folder, text, names=NAMES):
    (folder / FILE).write_text(text)
    return SPEC.load(folder, names)


def test_learns_an_interaction_and_is_calibrated(text, tmp_path):
    dataset = make_dataset()
    p_NC, y_N = load(tmp_path, text).predict(dataset)[TEST_T], dataset.y_T[TEST_T]
    shares = np.bincount(dataset.y_T[TRAIN_T]) / TRAIN_T.sum()
    assert (
        log_losses(p_NC, y_N).mean() < log_losses(np.tile(shares, (len(y_N), 1)), y_N).mean() - 0.15
    )
    of_tune = load(tmp_path, text).predict(dataset)[TUNE_T]
    np.testing.assert_allclose(
        of_tune.mean(0), np.bincount(dataset.y_T[TUNE_T]) / TUNE_T.sum(), atol=2e-3
    )


def test_the_file_alone_is_the_forecast(text, tmp_path):
    """LightGBM reads the same probabilities, calibration included."""
    import lightgbm

    dataset = make_dataset()
    twin = lightgbm.Booster(model_str=text).predict(dataset.x_TF[dataset.valid_T])
    np.testing.assert_allclose(
        load(tmp_path, text).predict(dataset)[dataset.valid_T], twin, atol=1e-12
    )


def test_a_class_without_training_rows_stays_finite(tmp_path):
    dataset = make_dataset(classes=(1, 2))
    p_TC = SPEC.fit(dataset, TRAIN_T, TUNE_T, seed=0, folder=tmp_path).predict(dataset)
    assert np.isfinite(p_TC[dataset.valid_T]).all()
    assert p_TC[dataset.valid_T, 0].max() < 0.01


def test_too_few_rows_to_split_give_the_class_frequencies(tmp_path):
    dataset, spec = make_dataset(), SPEC.model_copy(update={"min_rows": 1700})
    p_TC = spec.fit(dataset, TRAIN_T, TUNE_T, seed=0, folder=tmp_path).predict(dataset)[
        dataset.valid_T
    ]
    np.testing.assert_allclose(p_TC, np.tile(p_TC[0], (len(p_TC), 1)))
    np.testing.assert_allclose(p_TC[0], np.bincount(dataset.y_T[TUNE_T]) / TUNE_T.sum(), atol=2e-3)


def test_a_folder_that_takes_no_file_gets_one_clear_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hft.system.files.os.fsync", full)
    with pytest.raises(FileError, match=r"baseline\.txt: cannot be written .*No space left"):
        SPEC.fit(make_dataset(), TRAIN_T, TUNE_T, seed=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_truncated_and_foreign_files_are_refused(text, tmp_path):
    for broken in (
        text[: len(text) // 2],
        text[:100],
        "",
        "tree\nversion=v4\n",
        text.replace("Tree=1\n", ""),
    ):
        with pytest.raises(
            BaselineError, match=r"baseline\.txt: not a complete LightGBM text model"
        ):
            load(tmp_path, broken)
    (tmp_path / FILE).write_bytes(b"\x80\x04\x95 a pickle \xff")
    with pytest.raises(BaselineError, match=r"baseline\.txt: not a LightGBM text model"):
        SPEC.load(tmp_path, NAMES)
    with pytest.raises(
        BaselineError, match=r"gone/baseline\.txt: baseline cannot be read: No such file"
    ):
        SPEC.load(tmp_path / "gone", NAMES)
    with pytest.raises(
        BaselineError, match=r"feature_names is 'ofi spread noise_1', must be 'ofi depth'"
    ):
        load(tmp_path, text, ("ofi", "depth"))


@pytest.mark.parametrize(
    ("line", "value", "reason"),
    [
        ("split_feature", "3", "names a feature that does not exist"),
        ("split_feature", "-1", "names a feature that does not exist"),
        ("left_child", "0", "leads nowhere"),
        ("left_child", "9999", "leads nowhere"),
        ("right_child", "-9999", "leads nowhere"),
        ("threshold", "nan", "is not finite"),
        ("leaf_value", "inf", "is not finite"),
        ("leaf_value", "1 2", "differ in length"),
        ("decision_type", "1", "not a plain comparison"),
        ("left_child", "__import__('os')", "invalid literal"),
    ],
)
def test_a_tree_that_a_walk_could_get_lost_in_is_refused(text, tmp_path, line, value, reason):
    broken = re.sub(rf"^{line}=\S+", f"{line}={value}", text, count=1, flags=re.MULTILINE)
    assert broken != text
    with pytest.raises(BaselineError, match=rf"baseline\.txt: damaged: .*{reason}"):
        load(tmp_path, broken)
