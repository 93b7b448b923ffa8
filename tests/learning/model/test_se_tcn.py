"""Against a twin in plain loops, hand values and the published receptive fields; what it shares
with `tcn` too.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hft.learning.model._tcn import ChannelDropout, ChannelNorm, SqueezeExcite, trailing_mean
from hft.learning.model.se_tcn import SeTcn
from hft.learning.model.tcn import Tcn

SHARED = dict(
    channels=4, levels=2, kernel=3, dropout=0.0, norm="none", activation="relu", depthwise=False
)
SMALL = SHARED | dict(kind="se_tcn", se_window=3, se_reduction=2)
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: x * norm.cdf(x),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize(
    ("kernel", "levels", "window", "bars"),
    [(3, 6, 1, 253), (3, 6, 16, 343), (3, 6, 64, 631), (3, 4, 16, 121)],
)
def test_receptive_field(kernel, levels, window, bars):
    spec = SeTcn(**SMALL | {"kernel": kernel, "levels": levels, "se_window": window})
    assert spec.receptive_field == bars


def test_reduction_beyond_the_channels_is_refused():
    with pytest.raises(ValueError, match=r"se_reduction must be <= channels \(4\), got 5"):
        SeTcn(**SMALL | {"se_reduction": 5})


def test_without_gates_the_receptive_field_is_that_of_the_convolutions():
    assert Tcn(**SHARED | {"kind": "tcn", "levels": 6}).receptive_field == 253


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["se_tcn", "tcn"])
def test_equals_a_twin_in_plain_loops(kind, activation, depthwise):
    torch.manual_seed(3)
    change = {"activation": activation, "depthwise": depthwise}
    spec = SeTcn(**SMALL | change) if kind == "se_tcn" else Tcn(**SHARED | change | {"kind": "tcn"})
    model = spec.build(2).eval()
    x_TF = np.random.default_rng(0).normal(size=(30, 2))
    state = {k: v.double().numpy() for k, v in model.state_dict().items()}
    expected = _naive_network(x_TF, state, spec)
    with torch.no_grad():
        found = model(torch.from_numpy(x_TF).float()[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def _naive_network(h_TC, state, spec):
    activate = ACTIVATIONS[spec.activation]
    for level in range(spec.levels):
        name = f"blocks.{level}."
        out_TC = h_TC
        for conv in ("0", "4"):  # convolution, norm, activation, dropout, twice
            out_TC = activate(_naive_layer(out_TC, state, f"{name}body.{conv}.", spec, 2**level))
        if spec.se_window:
            out_TC = _naive_squeeze_excite(out_TC, state, f"{name}body.8.", spec.se_window)
        if f"{name}skip.weight" in state:
            h_TC = _naive_conv(h_TC, state[f"{name}skip.weight"], state[f"{name}skip.bias"], 1)
        h_TC = activate(out_TC + h_TC)
    return _naive_conv(h_TC, state["head.weight"], state["head.bias"], 1)


def _naive_layer(x_TC, state, name, spec, dilation):
    if not spec.depthwise:
        return _naive_conv(x_TC, state[f"{name}weight"], state[f"{name}bias"], dilation)
    taps_KC = state[f"{name}0.weight"]
    weight_CCK = np.stack([np.diag(tap_C) for tap_C in taps_KC], axis=2)  # no channel sees another
    over_time_TC = _naive_conv(x_TC, weight_CCK, np.zeros(taps_KC.shape[1]), dilation)
    return _naive_conv(over_time_TC, state[f"{name}1.weight"], state[f"{name}1.bias"], 1)


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
        hidden = np.maximum(
            state[f"{name}squeeze.weight"][:, :, 0] @ mean_C + state[f"{name}squeeze.bias"], 0
        )
        gate = state[f"{name}excite.weight"][:, :, 0] @ hidden + state[f"{name}excite.bias"]
        out[t] = x_TC[t] / (1 + np.exp(-gate))
    return out


def test_squeeze_excite_by_hand():
    """One channel, window 2, W1 = 1, W2 = 2, no bias: x * sigmoid(2 relu(mean of the last two))."""
    module = SqueezeExcite(1, 2, 1)
    for part, value in ((module.squeeze, 1.0), (module.excite, 2.0)):
        torch.nn.init.constant_(part.weight, value)
        torch.nn.init.zeros_(part.bias)
    x = torch.tensor([1.0, 3.0, -5.0, 2.0])
    mean = torch.tensor([0.5, 2.0, -1.0, -1.5])
    torch.testing.assert_close(
        module(x[None, :, None])[0, :, 0], x * torch.sigmoid(2 * mean.clamp_min(0))
    )


@pytest.mark.parametrize("window", [1, 2, 3, 7, 16, 64])
def test_trailing_mean_of_any_window(window):
    x = torch.randn(2, 80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack(
        [x[:, max(0, t - window + 1) : t + 1].sum(1) / window for t in range(80)], dim=1
    )
    torch.testing.assert_close(trailing_mean(x, window), expected)


def test_trailing_mean_does_not_drift():
    """A float32 running sum is off by 3e-2 after 100,000 steps."""
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 1
    found = trailing_mean(x[None, :, None], 16)[0, -1, 0]
    assert float(found) == pytest.approx(float(x[-16:].double().mean()), abs=1e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm_equals_torch(centred):
    x_BTC = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    twin = torch.nn.LayerNorm(6) if centred else torch.nn.RMSNorm(6, eps=1e-5)
    torch.testing.assert_close(ChannelNorm(6, centred=centred)(x_BTC), twin(x_BTC))


def test_dropout_zeroes_whole_channels_in_training_only():
    torch.manual_seed(0)
    module, x_BTC = ChannelDropout(0.25), torch.ones(50, 7, 40)
    kept_B1C = module(x_BTC)
    assert kept_B1C.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(kept_B1C, kept_B1C[:, :1].expand(50, 7, 40))
    assert float((kept_B1C > 0).float().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(module.eval()(x_BTC), x_BTC)


def test_weights_of_the_first_release_still_fit():
    """Names and shapes that stored runs hold: blocks.<i>.body.{0,4} convolutions, .8 gates, .skip,
    head.
    """
    state = SeTcn(**SMALL | {"norm": "weight"}).build(2).state_dict()
    convolution = ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1")
    gates = [f"8.{part}.{p}" for part in ("squeeze", "excite") for p in ("weight", "bias")]
    body = [f"{at}.{p}" for at in (0, 4) for p in convolution] + gates
    expected = {f"blocks.{i}.body.{name}" for i in (0, 1) for name in body}
    expected |= {f"{part}.{p}" for part in ("blocks.0.skip", "head") for p in ("weight", "bias")}
    assert set(state) == expected
    assert state["blocks.0.body.0.parametrizations.weight.original1"].shape == (4, 2, 3)
    assert state["head.weight"].shape == (3, 4, 1)
