"""The layers of `tcn`, `se_tcn` and `mlp`. The file imports torch alone, so that a GPU machine with
nothing else installed can measure them.

Legend: B sequences, T bars, P padded bars, C channels, F features, L blocks. Channels come last in
memory throughout: forward and backward, a convolution on a CPU then takes a half to a third of its
time on BCT. Everything is padded on the left only and normalised per bar.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm, leaky_relu, linear, pad, rms_norm, silu
from torch.nn.utils.parametrizations import weight_norm

ACTIVATIONS = {"relu": torch.relu, "leaky_relu": leaky_relu, "gelu": gelu, "silu": silu}


class LayerNumbers(Protocol):
    """What a layer reads off its spec; the fields are described in _tcn_spec.py."""

    @property
    def channels(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def activation(self) -> str: ...
    @property
    def depthwise(self) -> bool: ...


class TcnNumbers(LayerNumbers, Protocol):
    """What the whole network reads off its spec."""

    @property
    def levels(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def se_window(self) -> int: ...
    @property
    def se_reduction(self) -> int: ...


class CausalNetwork(nn.Module):
    """x_BTF -> logits_BTC; a bar's logits depend on it and on the `receptive_field` - 1 before."""

    receptive_field: int


def receptive_field(spec: TcnNumbers) -> int:
    # docs/definitions.md 2, TCN: two convolutions a block reach (k-1) 2^i bars each, and the
    # block's squeeze reaches S-1 more.
    return (
        1 + 2 * (spec.kernel - 1) * (2**spec.levels - 1) + spec.levels * max(spec.se_window - 1, 0)
    )


class Network(CausalNetwork):
    """`spec.se_window` 0 leaves squeeze-and-excitation out."""

    def __init__(self, spec: TcnNumbers, n_features: int, *, n_classes: int) -> None:
        super().__init__()
        self.receptive_field = receptive_field(spec)
        sizes = [n_features] + [spec.channels] * spec.levels
        self.blocks = nn.Sequential(
            *(Block(spec, n_in, dilation=2**i) for i, n_in in enumerate(sizes[:-1]))
        )
        self.head = CausalConv(spec.channels, n_classes, 1)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        logits_BTC: torch.Tensor = self.head(self.blocks(x_BTF))
        return logits_BTC


class Block(nn.Module):
    def __init__(self, spec: TcnNumbers, n_in: int, *, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *layer(spec, n_in, kernel=spec.kernel, dilation=dilation),
            *layer(spec, spec.channels, kernel=spec.kernel, dilation=dilation),
            SqueezeExcite(spec.channels, spec.se_window, spec.se_reduction)
            if spec.se_window
            else nn.Identity(),
        )
        # Bai et al. (2018) 3.4: a convolution of one tap where the residual's channels differ.
        self.skip = nn.Identity() if n_in == spec.channels else CausalConv(n_in, spec.channels, 1)
        self.activation = Activation(spec.activation)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        out_BTC: torch.Tensor = self.activation(self.body(x_BTC) + self.skip(x_BTC))
        return out_BTC


def layer(spec: LayerNumbers, n_in: int, *, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """Convolution, norm, activation, dropout; `depthwise` takes time and channels apart (Chollet
    2017).
    """
    apart = spec.depthwise and kernel > 1
    conv: nn.Module = CausalConv(n_in, spec.channels, 1 if apart else kernel, dilation=dilation)
    conv = weight_norm(conv) if spec.norm == "weight" else conv
    conv = nn.Sequential(DepthwiseConv(n_in, kernel, dilation=dilation), conv) if apart else conv
    norm = (
        ChannelNorm(spec.channels, centred=spec.norm == "layer")
        if spec.norm in ("layer", "rms")
        else nn.Identity()
    )
    # Always four modules, an Identity for a norm left out: places in the list are names in stored
    # weights (body.0, body.4, body.8).
    return [conv, norm, Activation(spec.activation), ChannelDropout(spec.dropout)]


# A Conv1d for its initial weights and their stored names and shapes. Its own padding adds bars at
# the end too, which would be the future.
class CausalConv(nn.Conv1d):
    def __init__(self, n_in: int, n_out: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, dilation=dilation)
        self.reach = (kernel - 1) * dilation

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        # One tap is a matrix product and needs no change of layout.
        if not self.reach:
            return linear(x_BTC, self.weight[:, :, 0], self.bias)
        # An image one bar high, because torch knows channels-last memory in four dimensions only.
        image_BC1P = pad(x_BTC, (0, 0, self.reach, 0)).transpose(1, 2)[:, :, None]
        out_BC1T = conv2d(
            image_BC1P, self.weight[:, :, None], self.bias, dilation=(1, *self.dilation)
        )
        return out_BC1T[:, :, 0].transpose(1, 2)


class DepthwiseConv(nn.Module):
    """Each channel by itself, as shifted sums; on a CPU torch's own dilated depthwise convolution
    takes 3 times as long.
    """

    def __init__(self, channels: int, kernel: int, *, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        # The range that torch gives a convolution of one input channel. No bias: the convolution
        # that mixes the channels follows and has one.
        self.weight = nn.Parameter(torch.empty(kernel, channels).uniform_(-1, 1) / kernel**0.5)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        n_bars, shifts = x_BTC.shape[1], range(0, len(self.weight) * self.dilation, self.dilation)
        x_BPC = pad(x_BTC, (0, 0, shifts[-1], 0))
        return torch.as_tensor(
            sum(x_BPC[:, at : at + n_bars] * w for at, w in zip(shifts, self.weight, strict=True))
        )


class Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[self.name](x)


class ChannelNorm(nn.Module):
    """Layer norm (centred) or RMS norm over the channels of each bar."""

    def __init__(self, channels: int, *, centred: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return rms_norm(x_BTC, self.gain.shape, self.gain, eps=1e-5)
        return layer_norm(x_BTC, self.gain.shape, self.gain, self.bias, eps=1e-5)


class ChannelDropout(nn.Module):
    """Whole channels of a sequence (Bai et al. 3.4): a value's neighbours in time would give it
    away.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.share:
            return x_BTC
        # torch's Dropout1d takes channels before time, which would cost a change of layout.
        kept_B1C = torch.empty_like(x_BTC[:, :1]).bernoulli_(1 - self.share)
        return x_BTC * (kept_B1C / (1 - self.share))


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 relu(W1 m)), m the mean of the last `window` bars; bars before the first count
    as zeros.
    """

    def __init__(self, channels: int, window: int, reduction: int) -> None:
        super().__init__()
        self.window = window
        self.squeeze = CausalConv(channels, channels // reduction, 1)
        self.excite = CausalConv(channels // reduction, channels, 1)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        return x_BTC * self.gates(x_BTC)

    def gates(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """In (0, 1), per bar and channel."""
        # W1 mean(x) = mean(W1 x): the mean of the few squeezed channels instead of all.
        squeezed = linear(x_BTC, self.squeeze.weight[:, :, 0])
        assert self.squeeze.bias is not None  # a CausalConv has one
        hidden = torch.relu(trailing_mean(squeezed, self.window) + self.squeeze.bias)
        gates_BTC: torch.Tensor = self.excite(hidden).sigmoid()
        return gates_BTC


def trailing_mean(x_BTC: torch.Tensor, window: int) -> torch.Tensor:
    """Of the last `window` bars: sums of 1, 2, 4 .. bars are made, and those of the window's binary
    digits are put end to end.

    A float32 running sum drifts; pooling takes thrice as long, and so does a convolution with
    constant weights.
    """
    n_bars = x_BTC.shape[1]
    sum_BPC, length = pad(x_BTC, (0, 0, window - 1, 0)), 1
    total_BTC, at = torch.zeros_like(x_BTC), 0
    # sum_BPC[:, i] is the sum of the padded bars i .. i + length - 1.
    while length <= window:
        if window & length:
            total_BTC, at = total_BTC + sum_BPC[:, at : at + n_bars], at + length
        if 2 * length <= window:
            sum_BPC = sum_BPC[:, length:] + sum_BPC[:, :-length]
        length *= 2
    return total_BTC / window
