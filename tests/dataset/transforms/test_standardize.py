"""Against numpy, column by column."""

from __future__ import annotations

import numpy as np
import torch

from hft.dataset.transforms import fit_transforms
from hft.dataset.transforms.standardize import Standardize


def fitted(x_NF, clip=8.0):
    return Standardize(kind="standardize", clip=clip).fit(np.asarray(x_NF, np.float32))


def test_mean_zero_deviation_one_over_known_values():
    x = (
        np.random.default_rng(1)
        .normal([60_000, -1, 1e-6], [3, 2, 1e-7], (500, 3))
        .astype(np.float32)
    )
    x[::5, 1] = np.nan
    x[3, 2] = np.inf
    seen = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
    expected = (x - np.nanmean(seen, 0)) / np.nanstd(seen, 0)
    np.testing.assert_allclose(fitted(x)(torch.from_numpy(x)), np.clip(expected, -8, 8), atol=2e-3)


def test_clip_bounds_both_sides():
    x = np.r_[np.zeros(999), 1e6, -1e6].astype(np.float32)[:, None]
    y = fitted(x, clip=4.0)(torch.from_numpy(x))
    assert (y.min(), y.max()) == (-4.0, 4.0)


def test_a_column_without_variation_or_values_becomes_zero():
    x = np.full((10, 3), 3.0, np.float32)
    x[:, 1] = np.nan
    x[:, 2] = 60_000 + np.arange(10) % 2 * 0.004  # one float32 step at 60,000
    module = fitted(x)
    assert module(torch.tensor([[99.0, 5.0, 70_000.0]])).tolist() == [[0, 0, 0]]


def test_each_transform_is_fitted_on_the_output_of_the_one_before():
    x = np.r_[np.zeros(99), 100.0][:, None].astype(np.float32)
    first = Standardize(kind="standardize", clip=1.0)
    chain = fit_transforms({"a": first, "b": Standardize(kind="standardize", clip=50.0)}, x)
    clipped = np.clip((x - x.mean()) / x.std(), -1, 1)
    np.testing.assert_allclose(
        chain(torch.from_numpy(x)), (clipped - clipped.mean()) / clipped.std(), rtol=1e-5
    )
