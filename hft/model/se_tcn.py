"""Temporal convolutional network (Bai et al. 2018) with squeeze-and-excitation (Hu et al. 2018) over a trailing window.

The spec; the network itself stands in `hft/model/_tcn.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from hft.model import ModelSpec
from hft.model._tcn import Network, receptive_field
from hft.schema import CLASS_NAMES


class SeTcn(ModelSpec):
    kind: Literal["se_tcn"]
    channels: int = Field(ge=1, le=2048, description="channels of every hidden layer")
    levels: int = Field(ge=1, le=14, description="residual blocks; block i dilates by 2^i bars")
    kernel: int = Field(ge=2, le=33, description="taps per convolution")
    dropout: float = Field(ge=0, le=0.9, description="share of channels zeroed per chunk, after each convolution")
    norm: Literal["layer", "rms", "weight", "none"] = Field(
        description="over the channels of a bar (layer, rms), of the weights (weight), or none"
    )
    se_window: int = Field(
        ge=1,
        le=4096,
        description="bars that the squeeze averages, the current one the last; 1 gates each bar by itself",
    )
    se_reduction: int = Field(ge=1, le=256, description="channels per hidden unit of the excitation")

    @model_validator(mode="after")
    def _has_hidden_units(self) -> SeTcn:
        if self.se_reduction > self.channels:
            raise ValueError(f"se_reduction must be <= channels ({self.channels}), got {self.se_reduction}")
        return self

    @property
    def receptive_field(self) -> int:
        return receptive_field(self)

    def build(self, n_features: int) -> nn.Module:
        return Network(self, n_features, n_classes=len(CLASS_NAMES))
