"""No baseline beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from hft.dataset.rows import Dataset
from hft.learning.baseline import BaselineSpec


class NoBaseline(BaselineSpec):
    kind: Literal["none"]

    def fit(
        self, dataset: Dataset, train_T: np.ndarray, tune_T: np.ndarray, *, seed: int, folder: Path
    ) -> None:
        return None

    def load(self, folder: Path, names: tuple[str, ...]) -> None:
        return None
