"""`tcn` with squeeze-and-excitation (Hu et al. 2018): each block gates its channels, by what a
trailing window holds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hft.learning.model._tcn_spec import TcnSpec


class SeTcn(TcnSpec):
    kind: Literal["se_tcn"]
    se_window: int = Field(
        ge=1,
        le=4096,
        description="bars that the squeeze averages, the current one the last; 1 gates each bar by "
        "itself",
    )
    se_reduction: int = Field(
        ge=1, le=256, description="channels per hidden unit of the excitation"
    )

    @model_validator(mode="after")
    def _has_hidden_units(self) -> SeTcn:
        # channels // se_reduction hidden units: with none, a gate would be a constant.
        if self.se_reduction > self.channels:
            raise ValueError(
                f"se_reduction must be <= channels ({self.channels}), got {self.se_reduction}"
            )
        return self
