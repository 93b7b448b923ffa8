"""What a training has come to: its curves, its best epoch, why it ended; the sums of an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hft.metrics import metric


@dataclass
class FitResult:
    """`history[epoch]`, from 0, holds what is repeatable to the bit:

    - `train/loss` (the mean while the weights move), `train/lr` (of the last step),
      `train/grad_norm` and `train/grad_norm_max` (before clipping)
    - `tune/loss` (of uncalibrated logits, every row with the same weight) and `tune/<name>` for
      each of `classification_metrics`, on probabilities calibrated on the same rows

    `timing[epoch]` holds what is not: `train/examples_per_s`, without the evaluation of tune.
    """

    class_counts: np.ndarray  # of the training rows that count
    history: list[dict[str, float]] = field(default_factory=list)
    timing: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    stopped: Literal["epochs", "patience", "callback"] = "epochs"

    @property
    def examples_per_s(self) -> float:
        """Of all epochs, each with the same number of examples."""
        speeds = [timing[metric("train", "examples_per_s")] for timing in self.timing]
        return len(speeds) / sum(1 / speed for speed in speeds) if speeds else 0.0


@dataclass
class Sums:
    """Of the epoch's steps so far, added in float64 and in their order: wherever a kill cuts them,
    the bits are the same.
    """

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    norm_max: float = 0.0
    seconds: float = 0.0
