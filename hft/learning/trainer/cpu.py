"""Training on the processor."""

from __future__ import annotations

from typing import Literal

import torch

from hft.learning.trainer import TrainerSpec


class Cpu(TrainerSpec):
    kind: Literal["cpu"]

    def device(self) -> torch.device:
        return torch.device("cpu")
