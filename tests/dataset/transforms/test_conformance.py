"""What every shipped set of transforms promises: shape, unknown values, independence of rows, a
state that can be stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
import yaml

from hft.dataset.transforms import build_transforms, fit_transforms
from hft.spec import Kind, Room, Spec, parse

SETS = sorted(Path("conf/transforms").glob("*.yaml"))


class Config(Spec):
    transforms: Annotated[dict[str, Kind], Room("hft.dataset.transforms")]


@pytest.fixture(params=SETS, ids=lambda path: path.stem)
def specs(request):
    return parse(Config, {"transforms": yaml.safe_load(request.param.read_text())}).transforms


@pytest.fixture
def x_NF():
    x = np.random.default_rng(0).normal(5, 3, (200, 4)).astype(np.float32)
    x[::7, 1] = np.nan
    return x


def test_every_kind_ships_a_set():
    shipped = {
        entry["kind"] for path in SETS for entry in yaml.safe_load(path.read_text()).values()
    }
    assert shipped == set(Room("hft.dataset.transforms").specs())


def test_a_set_keeps_rows_and_unknown_values(specs, x_NF):
    y_NF = fit_transforms(specs, x_NF)(torch.from_numpy(x_NF)).numpy()
    assert y_NF.shape[0] == x_NF.shape[0]
    assert y_NF.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(y_NF).any(1), np.isnan(x_NF).any(1))


def test_a_row_is_transformed_alone(specs, x_NF):
    fitted = fit_transforms(specs, x_NF)
    x = torch.from_numpy(x_NF)
    torch.testing.assert_close(fitted(x)[17:19], fitted(x[17:19]), rtol=0, atol=0, equal_nan=True)


def test_nothing_learns(specs, x_NF):
    assert not list(fit_transforms(specs, x_NF).parameters())


def test_a_stored_state_gives_the_same_transform(specs, x_NF):
    fitted, blank = fit_transforms(specs, x_NF), build_transforms(specs, x_NF.shape[1])
    blank.load_state_dict(fitted.state_dict())
    x = torch.from_numpy(x_NF)
    torch.testing.assert_close(blank(x), fitted(x), rtol=0, atol=0, equal_nan=True)
