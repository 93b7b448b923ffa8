"""The network of `se_tcn`, of torch alone, so that a GPU machine without the rest of the house can measure it.

Legend: B sequences, T bars, C channels, F features. Everything is padded on the left only and normalised per bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import conv1d, pad
from torch.nn.utils.parametrizations import weight_norm

if TYPE_CHECKING:
    from hft.model.se_tcn import SeTcn


def receptive_field(spec: SeTcn) -> int:
    # Two convolutions a block reach (k-1) 2^i bars each; the block's squeeze reaches S-1 more.
    return 1 + 2 * (spec.kernel - 1) * (2**spec.levels - 1) + spec.levels * (spec.se_window - 1)


class Network(nn.Module):
    def __init__(self, spec: SeTcn, n_features: int, *, n_classes: int) -> None:
        super().__init__()
        self.receptive_field = receptive_field(spec)
        sizes = [n_features] + [spec.channels] * spec.levels
        self.blocks = nn.Sequential(*(Block(spec, n_in, dilation=2**i) for i, n_in in enumerate(sizes[:-1])))
        self.head = nn.Conv1d(spec.channels, n_classes, 1)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x_BTF.transpose(1, 2))).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, spec: SeTcn, n_in: int, *, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_layer(spec, n_in, dilation=dilation),
            *_layer(spec, spec.channels, dilation=dilation),
            SqueezeExcite(spec.channels, spec.se_window, spec.se_reduction),
        )
        self.skip = nn.Identity() if n_in == spec.channels else nn.Conv1d(n_in, spec.channels, 1)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x_BCT) + self.skip(x_BCT))


def _layer(spec: SeTcn, n_in: int, *, dilation: int) -> list[nn.Module]:
    conv = CausalConv(n_in, spec.channels, spec.kernel, dilation=dilation)
    norm = {
        "layer": lambda: ChannelNorm(spec.channels, centred=True),
        "rms": lambda: ChannelNorm(spec.channels, centred=False),
    }.get(spec.norm, nn.Identity)()
    # Dropout1d zeroes whole channels (Bai et al. 3.4): a sequence's neighbours would give single values away.
    return [weight_norm(conv) if spec.norm == "weight" else conv, norm, nn.ReLU(), nn.Dropout1d(spec.dropout)]


class CausalConv(nn.Conv1d):
    def __init__(self, n_in: int, n_out: int, kernel: int, *, dilation: int) -> None:
        super().__init__(n_in, n_out, kernel, dilation=dilation)
        self.reach = (kernel - 1) * dilation

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return super().forward(pad(x_BCT, (self.reach, 0)))


class ChannelNorm(nn.Module):
    """Layer norm (centred) or RMS norm over the channels of each bar."""

    def __init__(self, channels: int, *, centred: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            x_BCT = x_BCT - x_BCT.mean(1, keepdim=True)
        y_BCT = x_BCT * torch.rsqrt(x_BCT.square().mean(1, keepdim=True) + 1e-5) * self.gain[:, None]
        return y_BCT if self.bias is None else y_BCT + self.bias[:, None]


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 relu(W1 m)), m the mean of the last `window` bars (zeros before the first bar count)."""

    def __init__(self, channels: int, window: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, channels // reduction, 1)
        self.excite = nn.Conv1d(channels // reduction, channels, 1)
        # A depthwise convolution with constant weights: faster than avg_pool1d, and a float32 cumsum drifts.
        self.register_buffer("average", torch.full((channels, 1, window), 1 / window), persistent=False)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        channels, _, window = self.average.shape
        mean_BCT = conv1d(pad(x_BCT, (window - 1, 0)), self.average, groups=channels)
        return x_BCT * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean_BCT))))
