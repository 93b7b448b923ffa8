"""Against a twin in plain loops, hand values and the published receptive fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hft.model._tcn import ChannelNorm, SqueezeExcite
from hft.model.se_tcn import SeTcn

SMALL = dict(kind="se_tcn", channels=4, levels=2, kernel=3, dropout=0.0, norm="none", se_window=3, se_reduction=2)


@pytest.mark.parametrize(
    ("kernel", "levels", "window", "bars"), [(3, 6, 1, 253), (3, 6, 16, 343), (3, 6, 64, 631), (3, 4, 16, 121)]
)
def test_receptive_field(kernel, levels, window, bars):
    spec = SeTcn(**SMALL | {"kernel": kernel, "levels": levels, "se_window": window})
    assert spec.receptive_field == bars


def test_reduction_beyond_the_channels_is_refused():
    with pytest.raises(ValueError, match=r"se_reduction must be <= channels \(4\), got 5"):
        SeTcn(**SMALL | {"se_reduction": 5})


def test_equals_a_twin_in_plain_loops():
    torch.manual_seed(3)
    spec = SeTcn(**SMALL)
    model = spec.build(2).eval()
    x_TF = np.random.default_rng(0).normal(size=(30, 2))
    state = {k: v.double().numpy() for k, v in model.state_dict().items()}
    expected = _naive_network(x_TF, state, spec)
    with torch.no_grad():
        found = model(torch.from_numpy(x_TF).float()[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def _naive_network(h_TC, state, spec):
    for level in range(spec.levels):
        name = f"blocks.{level}."
        out_TC = h_TC
        for conv in ("0", "4"):  # convolution, norm, ReLU, dropout, twice
            weight, bias = state[f"{name}body.{conv}.weight"], state[f"{name}body.{conv}.bias"]
            out_TC = np.maximum(_naive_conv(out_TC, weight, bias, 2**level), 0)
        out_TC = _naive_squeeze_excite(out_TC, state, f"{name}body.8.", spec.se_window)
        if f"{name}skip.weight" in state:
            h_TC = _naive_conv(h_TC, state[f"{name}skip.weight"], state[f"{name}skip.bias"], 1)
        h_TC = np.maximum(out_TC + h_TC, 0)
    return _naive_conv(h_TC, state["head.weight"], state["head.bias"], 1)


def _naive_conv(x_TC, weight_OCK, bias_O, dilation):
    taps = weight_OCK.shape[2]
    out = np.tile(bias_O, (len(x_TC), 1))
    for t in range(len(x_TC)):
        for k in range(taps):
            source = t - (taps - 1 - k) * dilation
            if source >= 0:
                out[t] += weight_OCK[:, :, k] @ x_TC[source]
    return out


def _naive_squeeze_excite(x_TC, state, name, window):
    out = np.empty_like(x_TC)
    for t in range(len(x_TC)):
        mean_C = x_TC[max(0, t - window + 1) : t + 1].sum(0) / window
        hidden = np.maximum(state[f"{name}squeeze.weight"][:, :, 0] @ mean_C + state[f"{name}squeeze.bias"], 0)
        gate = state[f"{name}excite.weight"][:, :, 0] @ hidden + state[f"{name}excite.bias"]
        out[t] = x_TC[t] / (1 + np.exp(-gate))
    return out


def test_squeeze_excite_by_hand():
    """One channel, window 2, W1 = 1, W2 = 2, no bias: x * sigmoid(2 relu(mean of the last two))."""
    module = SqueezeExcite(1, 2, 1)
    for part, value in ((module.squeeze, 1.0), (module.excite, 2.0)):
        torch.nn.init.constant_(part.weight, value)
        torch.nn.init.zeros_(part.bias)
    x = torch.tensor([[[1.0, 3.0, -5.0, 2.0]]])
    mean = torch.tensor([0.5, 2.0, -1.0, -1.5])
    torch.testing.assert_close(module(x)[0, 0], x[0, 0] * torch.sigmoid(2 * mean.clamp_min(0)))


def test_trailing_mean_does_not_drift():
    """A float32 running sum is off by 3e-2 after 100,000 steps."""
    module = SqueezeExcite(1, 16, 1)
    for part in (module.squeeze, module.excite):
        torch.nn.init.constant_(part.weight, 1.0)
        torch.nn.init.zeros_(part.bias)
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 1
    gate = module(x[None, None])[0, 0].detach() / x
    expected = torch.sigmoid(x[-16:].double().mean())
    assert float(gate[-1]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm_equals_torch(centred):
    x_BCT = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)) * 3 + 1
    twin = torch.nn.LayerNorm(6) if centred else torch.nn.RMSNorm(6, eps=1e-5)
    expected = twin(x_BCT.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ChannelNorm(6, centred=centred)(x_BCT), expected)


def test_dropout_zeroes_whole_channels_in_training_only():
    torch.manual_seed(0)
    model = SeTcn(**SMALL | {"dropout": 0.5, "levels": 1}).build(2)
    x = torch.randn(1, 40, 2)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
