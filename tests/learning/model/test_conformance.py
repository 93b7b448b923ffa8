"""What every model keeps, over every shipped YAML and over odd settings of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import torch
import yaml
from safetensors.torch import load, save

from hft.spec import Kind, Room, Spec, parse

SHIPPED = sorted(Path("conf/model").glob("*.yaml"))
ODD = {
    "se_tcn": [
        {"norm": "layer", "kernel": 2, "levels": 2, "channels": 6, "se_window": 1},
        {"norm": "rms", "kernel": 4, "levels": 1, "channels": 5, "se_reduction": 5, "se_window": 7},
        {"norm": "none", "levels": 3, "channels": 8, "dropout": 0.0},
        {"norm": "weight", "levels": 2, "channels": 5, "se_reduction": 1, "se_window": 3},
        {
            "norm": "weight",
            "levels": 3,
            "channels": 8,
            "se_reduction": 1,
            "depthwise": True,
            "activation": "silu",
        },
    ],
    "tcn": [
        {"norm": "layer", "kernel": 2, "levels": 2, "channels": 5, "activation": "gelu"},
        {
            "norm": "rms",
            "kernel": 5,
            "levels": 2,
            "channels": 3,
            "depthwise": True,
            "activation": "leaky_relu",
        },
    ],
    "mlp": [
        {"window": 1, "layers": 1, "norm": "none", "channels": 3},
        {"window": 33, "layers": 3, "norm": "weight", "activation": "gelu"},
        {"window": 2, "norm": "rms", "activation": "silu"},
    ],
    "linear": [{"window": 1}, {"window": 33}],
}
CASES = [(path.stem, {}) for path in SHIPPED] + [
    (kind, change) for kind, changes in ODD.items() for change in changes
]
F = 5


class Config(Spec):
    model: Annotated[Kind, Room("hft.learning.model")]


def make_spec(kind, change):
    return parse(
        Config, {"model": yaml.safe_load(Path(f"conf/model/{kind}.yaml").read_text()) | change}
    ).model


@pytest.fixture(
    params=CASES, ids=lambda case: "-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])
)
def spec(request):
    return make_spec(*request.param)


@pytest.fixture
def model(spec):
    """Without dropout, so that train() is deterministic."""
    change = {"dropout": 0.0} if "dropout" in type(spec).model_fields else {}
    torch.manual_seed(0)
    return spec.model_copy(update=change).build(F)


def inputs(n_bars, n_sequences=2, seed=1):
    return torch.randn(n_sequences, n_bars, F, generator=torch.Generator().manual_seed(seed))


def test_every_kind_ships_its_yaml_and_odd_settings():
    kinds = set(Room("hft.learning.model").specs())
    assert kinds == {path.stem for path in SHIPPED} == set(ODD)
    assert all(yaml.safe_load(path.read_text())["kind"] == path.stem for path in SHIPPED)


def test_predicts_three_classes_at_every_bar(spec, model):
    assert model(inputs(7)).shape == (2, 7, 3)
    assert model.receptive_field == spec.receptive_field


@pytest.mark.parametrize("training", [True, False])
def test_later_inputs_change_no_earlier_output(model, training):
    model.train(training)
    x = inputs(model.receptive_field + 40)
    cut = model.receptive_field + 17
    changed = x.clone()
    changed[:, cut:] = 100 * inputs(x.shape[1] - cut, seed=2)
    with torch.no_grad():
        before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :cut], after[:, :cut], rtol=0, atol=1e-6)
    assert not torch.equal(before[:, cut], after[:, cut])


def test_dense_output_equals_the_output_of_each_window(model):
    reach = model.receptive_field
    x = inputs(reach + 30, n_sequences=1)
    with torch.no_grad():
        dense = model.eval()(x)[0, reach - 1 :]
        windowed = model(x[0].unfold(0, reach, 1).transpose(1, 2))[:, -1]
    torch.testing.assert_close(dense, windowed, rtol=0, atol=1e-6)


def test_receptive_field_is_exact(model):
    """The gradient of the last output reaches back to input t - R + 1 and to nothing before it."""
    x = inputs(model.receptive_field + 5, n_sequences=8).double().requires_grad_()
    model.double().eval()(x)[:, -1].sum().backward()
    reached = x.grad.abs().sum((0, 2)) > 0
    assert not reached[:5].any()
    assert reached[5]
    assert reached[-1]


def test_every_parameter_gets_a_finite_gradient(spec):
    torch.manual_seed(0)
    model = spec.build(F).train()
    model(inputs(spec.receptive_field + 64, n_sequences=4)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_state_survives_storage(spec, model):
    torch.manual_seed(99)
    other = spec.build(F)
    other.load_state_dict(load(save(model.state_dict())))
    x = inputs(model.receptive_field + 3)
    torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_calls_leave_no_state_behind(model, training):
    model.train(training)
    x = inputs(50)
    first = model(x)
    model(100 * inputs(20, seed=3))
    torch.testing.assert_close(model(x), first, rtol=0, atol=0)
