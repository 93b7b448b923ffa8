"""Unknown rows, calibration and storage of what a run keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hft.dataset.transforms.standardize import Standardize
from hft.learning.classifier import CheckpointError, fit_classifier, load_classifier
from hft.learning.model.linear import Linear
from hft.system.files import FileError

TRANSFORMS = {"standardize": Standardize(kind="standardize", clip=8.0)}
LINEAR = Linear(kind="linear", window=4)


@pytest.fixture
def x_NF():
    return np.random.default_rng(0).normal(50, 3, (300, 3)).astype(np.float32)


@pytest.fixture
def classifier(x_NF):
    return fit_classifier(LINEAR, TRANSFORMS, x_NF, seed=0).eval()


def test_transforms_see_the_given_rows_only(x_NF):
    half = fit_classifier(LINEAR, TRANSFORMS, x_NF[:150], seed=0)
    np.testing.assert_allclose(half.transforms.standardize.mean, x_NF[:150].mean(0), rtol=1e-6)


def test_seed_decides_the_initial_weights_and_leaves_the_generator_alone(x_NF):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same, other = (
        fit_classifier(LINEAR, TRANSFORMS, x_NF, seed=s).network.conv.weight for s in (0, 1)
    )
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(same, fit_classifier(LINEAR, TRANSFORMS, x_NF, seed=0).network.conv.weight)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_a_row_with_an_unknown_feature_is_zero_after_scaling(classifier, x_NF, unknown):
    x = torch.from_numpy(x_NF[:10].copy())
    x[4, 1] = unknown
    scaled = classifier.scale(x)
    assert scaled[4].tolist() == [0, 0, 0]
    assert (scaled[[3, 5]] != 0).all()
    assert torch.isfinite(classifier(x[None])).all()


def test_calibration_is_the_identity_until_fitted(classifier, x_NF):
    x = torch.from_numpy(x_NF)[None]
    torch.testing.assert_close(classifier(x), classifier.logits(x).double(), rtol=0, atol=0)
    y_N = np.arange(300) % 2
    classifier.calibrate(classifier.logits(x)[0].detach().numpy(), y_N)
    p_NC = classifier(x)[0].softmax(-1)
    assert p_NC.dtype == torch.float64
    np.testing.assert_allclose(p_NC.mean(0).detach(), [0.5, 0.5, 0], atol=0.02)


def test_storage_keeps_everything(classifier, x_NF, tmp_path):
    classifier.log_temperature.fill_(0.3)
    classifier.class_bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
    classifier.save(tmp_path / "weights.safetensors")
    loaded = load_classifier(tmp_path / "weights.safetensors", LINEAR, TRANSFORMS, n_features=3)
    x = torch.from_numpy(x_NF)[None]
    torch.testing.assert_close(loaded(x), classifier(x), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_truncated_corrupt_and_foreign_files_are_refused(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    classifier.save(path)
    whole = path.read_bytes()
    for content in (
        whole[:-10],
        whole[:5],
        b"",
        b"\x80\x04\x95 a pickle",
        b"\xff" * 64,
        whole + b"tail",
    ):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"weights\.safetensors: not a complete safetensors file"
        ):
            load_classifier(path, LINEAR, TRANSFORMS, n_features=3)


def test_a_pickle_is_never_executed(tmp_path):
    path, touched = tmp_path / "weights.safetensors", tmp_path / "executed"
    path.write_bytes(f"cos\nsystem\n(S'touch {touched}'\ntR.".encode())
    with pytest.raises(CheckpointError):
        load_classifier(path, LINEAR, TRANSFORMS, n_features=3)
    assert not touched.exists()


def test_weights_of_another_config_name_the_difference(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    classifier.save(path)
    with pytest.raises(
        CheckpointError,
        match=r"network\.conv\.weight is float32\[3, 3, 4\], must be float32\[3, 3, 9\]",
    ):
        load_classifier(path, Linear(kind="linear", window=9), TRANSFORMS, n_features=3)
    with pytest.raises(CheckpointError, match=r"transforms\.standardize\.factor is unknown"):
        load_classifier(path, LINEAR, {}, n_features=3)
    with pytest.raises(CheckpointError, match=r"transforms\.again\.factor is missing"):
        load_classifier(
            path, LINEAR, TRANSFORMS | {"again": TRANSFORMS["standardize"]}, n_features=3
        )


def test_values_that_are_not_finite_are_refused(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(
        classifier.state_dict() | {"class_bias": torch.full((3,), torch.nan, dtype=torch.float64)},
        path,
    )
    with pytest.raises(CheckpointError, match="class_bias holds values that are not finite"):
        load_classifier(path, LINEAR, TRANSFORMS, n_features=3)


def test_missing_file_and_folder_name_the_path(classifier, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"gone/weights\.safetensors: weights cannot be read: No such file"
    ):
        load_classifier(tmp_path / "gone" / "weights.safetensors", LINEAR, TRANSFORMS, n_features=3)
    (tmp_path / "a_file").touch()
    with pytest.raises(FileError, match=r"a_file/weights\.safetensors: cannot be written"):
        classifier.save(tmp_path / "a_file" / "weights.safetensors")
