"""Multilayer perceptron on the last `window` bars: a causal convolution, then layers of one bar."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from hft.learning.model import CausalNetwork
from hft.learning.model._tcn import CausalConv, layer
from hft.learning.model._tcn_spec import LayerSpec
from hft.schema import CLASS_NAMES


class Mlp(LayerSpec):
    # `layer` reads it off every spec; a perceptron mixes all features of its window at once.
    depthwise: ClassVar[bool] = False

    kind: Literal["mlp"]
    window: int = Field(
        ge=1, le=4096, description="bars that one prediction sees, the current one the last"
    )
    layers: int = Field(ge=1, le=32, description="hidden layers, that of the window the first")

    @property
    def receptive_field(self) -> int:
        return self.window

    def build(self, n_features: int) -> CausalNetwork:
        return Network(self, n_features)


class Network(nn.Sequential, CausalNetwork):
    def __init__(self, spec: Mlp, n_features: int) -> None:
        hidden = layer(spec, n_features, kernel=spec.window)
        for _ in range(spec.layers - 1):
            hidden += layer(spec, spec.channels, kernel=1)
        super().__init__(*hidden, CausalConv(spec.channels, len(CLASS_NAMES), 1))
        self.receptive_field = spec.window
