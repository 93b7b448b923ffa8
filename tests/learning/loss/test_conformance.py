"""What every shipped loss keeps: one finite value >= 0 per row, finite gradients, less for a better
forecast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
import yaml

from hft.spec import Kind, Room, Spec, parse

SHIPPED = sorted(Path("conf/loss").glob("*.yaml"))
ODD = [{}, {"alpha": "balanced", "beta": 0.99}, {"alpha": [0.5, 2.0, 3.0], "label_smoothing": 0.01}]
CASES = [(path, change) for path in SHIPPED for change in ODD]


class Config(Spec):
    loss: Annotated[Kind, Room("hft.learning.loss")]


@pytest.fixture(
    params=CASES,
    ids=lambda case: "-".join([case[0].stem, *(f"{k}={v}" for k, v in case[1].items())]),
)
def loss(request):
    path, change = request.param
    plain = yaml.safe_load(path.read_text())
    assert plain["kind"] == path.stem
    plain |= change
    return parse(Config, {"loss": plain}).loss.build(np.array([700, 200, 100]))


def test_every_kind_ships_its_yaml():
    assert {path.stem for path in SHIPPED} == set(Room("hft.learning.loss").specs())


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_one_finite_value_per_row_and_finite_gradients(loss, scale):
    rng = torch.Generator().manual_seed(0)
    logits = (torch.randn(64, 3, generator=rng) * scale).requires_grad_()
    values = loss(logits, torch.randint(3, (64,), generator=rng))
    values.sum().backward()
    assert values.shape == (64,)
    assert (values >= 0).all()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


def test_a_better_forecast_costs_less(loss):
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 4.0, 0.0]])
    values = loss(logits, torch.tensor([1, 1, 1]))
    assert values[0] > values[1] > values[2]


def test_rows_do_not_see_each_other(loss):
    logits, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
    torch.testing.assert_close(loss(logits, y)[3:4], loss(logits[3:4], y[3:4]), rtol=0, atol=0)
