"""Training on the first CUDA card that this process sees."""

from __future__ import annotations

from typing import Literal

import torch

from hft.learning.trainer import TrainerSpec, TrainingError


class Gpu(TrainerSpec):
    kind: Literal["gpu"]

    def device(self) -> torch.device:
        if not torch.cuda.is_available():
            raise TrainingError(
                f"trainer=gpu: torch {torch.__version__} sees no CUDA GPU; use trainer=cpu"
            )
        return torch.device("cuda", 0)
