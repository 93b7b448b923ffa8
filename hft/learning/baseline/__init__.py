"""A plain forecast on the same rows, fitted beside the run, for every deep result to stand next to.

In: the dataset and the rows that the network trains and is tuned on. Out: a Forecaster of
calibrated probabilities, kept in the fold's folder, or None for `none`. To add one:
`hft/learning/baseline/<kind>.py` with a subclass of BaselineSpec and `conf/baseline/<kind>.yaml`;
the conformance suite in tests/learning/baseline checks the rest.

Legend: T bars, C classes (hold, buy, sell).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from hft.dataset.rows import Dataset
from hft.spec import Kind, UserError


class BaselineError(UserError):
    """A stored baseline that is missing, damaged or of another config."""


class Forecaster(Protocol):
    def predict(self, dataset: Dataset) -> np.ndarray:
        """Calibrated probabilities float64 [T, C], nan at bars with an unknown feature."""


class BaselineSpec(Kind):
    def fit(
        self, dataset: Dataset, train_T: np.ndarray, tune_T: np.ndarray, *, seed: int, folder: Path
    ) -> Forecaster | None:
        """Fits on `train_T` with the dataset's weights; `tune_T` serves early stopping and
        calibration, as it does for the network. The rows of both must be labelled and valid. Leaves
        in `folder` what `load` needs.
        """
        raise NotImplementedError

    def load(self, folder: Path, names: tuple[str, ...]) -> Forecaster | None:
        """What `fit` left in `folder`, for a dataset with these features. Raises BaselineError."""
        raise NotImplementedError
