"""What the specs of `tcn`, `se_tcn` and `mlp` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hft.learning.model import CausalNetwork, ModelSpec
from hft.learning.model._tcn import Network, receptive_field
from hft.schema import CLASS_NAMES


class LayerSpec(ModelSpec):
    channels: int = Field(ge=1, le=2048, description="channels of every hidden layer")
    dropout: float = Field(
        ge=0, le=0.9, description="share of channels zeroed per chunk, after each convolution"
    )
    norm: Literal["layer", "rms", "weight", "none"] = Field(
        description="over the channels of a bar (layer, rms), of the weights (weight), or none"
    )
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = Field(
        description="after each convolution and each residual sum",
        json_schema_extra={"before": "relu"},
    )


class TcnSpec(LayerSpec):
    """A kind says `se_window` and `se_reduction`, as fields or, where it has no gates, as 0."""

    # At run time pydantic warns of a field that shadows a property of its parent.
    if TYPE_CHECKING:

        @property
        def se_window(self) -> int: ...
        @property
        def se_reduction(self) -> int: ...

    levels: int = Field(ge=1, le=14, description="residual blocks; block i dilates by 2^i bars")
    kernel: int = Field(ge=2, le=33, description="taps per convolution")
    depthwise: bool = Field(
        description="each channel's own convolution over time, then a mix of channels: fewer "
        "weights, less work",
        json_schema_extra={"before": False},
    )

    @property
    def receptive_field(self) -> int:
        return receptive_field(self)

    def build(self, n_features: int) -> CausalNetwork:
        return Network(self, n_features, n_classes=len(CLASS_NAMES))
