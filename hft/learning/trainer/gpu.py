"""Training on the first CUDA card that this process sees."""

from __future__ import annotations

from typing import Literal

import torch

from hft.learning.trainer import TrainerSpec, TrainingError


class Gpu(TrainerSpec):
    kind: Literal["gpu"]

    def device(self) -> torch.device:
        # Asked when a training starts, not when the spec is read: a run trained on a GPU can be
        # read and scored without one.
        if not torch.cuda.is_available():
            raise TrainingError(
                f"trainer=gpu: torch {torch.__version__} sees no CUDA GPU; use trainer=cpu"
            )
        # A sweep gives each worker its card by CUDA_VISIBLE_DEVICES, so the first is its own.
        return torch.device("cuda", 0)
