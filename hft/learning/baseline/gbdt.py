"""Boosted trees (LightGBM, Ke et al. 2017) on the features of a single bar; the model is a text
file.

Calibration goes into the leaves: every leaf is divided by the temperature, and the class bias is
added to the leaves of each class's first tree. So the file is the whole forecast, for us and for
any other reader of the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from hft.dataset.rows import Dataset
from hft.learning.baseline import BaselineError, BaselineSpec
from hft.learning.baseline._trees import Trees, label, read_trees, sum_leaves
from hft.learning.calibration import fit_calibration
from hft.schema import CLASS_NAMES
from hft.system.files import write_atomic

FILE = "baseline.txt"


class Gbdt(BaselineSpec):
    kind: Literal["gbdt"]
    rounds: int = Field(ge=1, le=10_000, description="trees per class at most")
    patience: int = Field(
        ge=1, description="rounds without a better log loss on tune before growth stops"
    )
    lr: float = Field(gt=0, le=1, description="shrinkage of each tree")
    leaves: int = Field(ge=2, le=1024, description="leaves per tree at most")
    min_rows: int = Field(ge=1, description="training rows per leaf at least")
    row_share: float = Field(gt=0, le=1, description="share of rows drawn for each round")
    feature_share: float = Field(gt=0, le=1, description="share of features drawn for each tree")
    l2: float = Field(ge=0, description="ridge on the leaves")
    threads: int = Field(
        ge=1,
        le=1024,
        description="CPU threads; on a busy machine more than one can take 50 times as long",
    )

    def fit(
        self, dataset: Dataset, train_T: np.ndarray, tune_T: np.ndarray, *, seed: int, folder: Path
    ) -> GbdtForecaster:
        grown = self._grow(dataset, train_T, tune_T, seed=seed)
        y_N = dataset.y_T[tune_T]
        _calibrate(grown, grown.predict(dataset.x_TF[tune_T], raw_score=True), y_N)
        # Not by LightGBM's own writer: a full disk must be one clear error and leave no file.
        write_atomic(folder / FILE, grown.model_to_string().encode("ascii"))
        # What is scored is what was stored.
        return self.load(folder, dataset.names)

    def load(self, folder: Path, names: tuple[str, ...]) -> GbdtForecaster:
        path = folder / FILE
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise BaselineError(
                f"{path}: baseline cannot be read: {error.strerror}; train again"
            ) from None
        except UnicodeDecodeError:
            raise BaselineError(
                f"{path}: not a LightGBM text model; train again or restore it"
            ) from None
        return GbdtForecaster(read_trees(text, names, where=str(path)))

    def _grow(self, dataset: Dataset, train_T: np.ndarray, tune_T: np.ndarray, *, seed: int) -> Any:
        """The booster, cut after its best round."""
        # Trees are read and walked without it (_trees.py), so a backtest does not import it.
        import lightgbm

        names = [label(name) for name in dataset.names]
        train, tune = (
            lightgbm.Dataset(
                dataset.x_TF[rows_T], dataset.y_T[rows_T], weight=weight, feature_name=names
            )
            for rows_T, weight in (
                # Mean 1, as for the network: `l2` is compared with sums of weights.
                (train_T, dataset.w_T[train_T] / dataset.w_T[train_T].mean()),
                # The network's score on tune is unweighted too.
                (tune_T, None),
            )
        )
        stop = lightgbm.early_stopping(self.patience, verbose=False)
        grown = lightgbm.train(
            self._parameters(seed), train, self.rounds, valid_sets=[tune], callbacks=[stop]
        )
        return lightgbm.Booster(model_str=grown.model_to_string(num_iteration=grown.best_iteration))

    def _parameters(self, seed: int) -> dict[str, Any]:
        return {
            "objective": "multiclass",
            "metric": "multi_logloss",
            "num_class": len(CLASS_NAMES),
            "learning_rate": self.lr,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.min_rows,
            "bagging_fraction": self.row_share,
            # LightGBM ignores bagging_fraction where this is 0, its default.
            "bagging_freq": 1,
            "feature_fraction": self.feature_share,
            "lambda_l2": self.l2,
            "num_threads": self.threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,  # left to itself, LightGBM times both ways and takes the faster
            # Only rows with every feature known are given, and _trees.py reads no other splits.
            "use_missing": False,
            "verbosity": -1,
        }


def _calibrate(grown: Any, logits_NC: np.ndarray, y_N: np.ndarray) -> None:
    temperature, bias_C = fit_calibration(logits_NC, y_N)
    for tree in grown.dump_model()["tree_info"]:
        k = tree["tree_index"]
        shift = bias_C[k] if k < len(CLASS_NAMES) else 0.0  # trees take turns over the classes
        for leaf in range(tree["num_leaves"]):
            grown.set_leaf_output(k, leaf, grown.get_leaf_output(k, leaf) / temperature + shift)


@dataclass(frozen=True)
class GbdtForecaster:
    trees: Trees

    def predict(self, dataset: Dataset) -> np.ndarray:
        p_TC = np.full((len(dataset.x_TF), len(CLASS_NAMES)), np.nan)
        logits_NC = sum_leaves(self.trees, dataset.x_TF[dataset.valid_T], len(CLASS_NAMES))
        odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        p_TC[dataset.valid_T] = odds_NC / odds_NC.sum(axis=1, keepdims=True)
        return p_TC
