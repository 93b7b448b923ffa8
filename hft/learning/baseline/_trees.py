"""LightGBM's text format, as far as our own models use it: numeric splits, no missing values,
multiclass.

A run may come from a stranger, and LightGBM's own parser trusts what it reads. So its C++ never
sees a stored file: numbers are read and checked here, and the trees are walked here.

Legend: N rows, F features, C classes, K trees, S splits of all trees, V leaves of all trees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from hft.learning.baseline import BaselineError
from hft.schema import CLASS_NAMES
from hft.system.kernels import kernel

# A decision_type: "<=", nothing missing. Bit 1, where a missing value would go, is set by default.
NUMERIC = 2


@dataclass(frozen=True)
class Trees:
    """All trees end to end. A child >= 0 is a split of the same tree and comes after its parent; a
    child below 0 is the leaf ~child.
    """

    first_split_K: np.ndarray
    first_leaf_K: np.ndarray
    n_splits_K: np.ndarray
    feature_S: np.ndarray
    threshold_S: np.ndarray
    left_S: np.ndarray
    right_S: np.ndarray
    leaf_V: np.ndarray


def label(name: str) -> str:
    """A feature's name as the text file holds it."""
    # The file separates names by spaces, and LightGBM refuses the special characters of JSON.
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def read_trees(text: str, names: tuple[str, ...], *, where: str) -> Trees:
    """Raises BaselineError unless `text` is a whole model of these features with finite numbers and
    sound trees.
    """
    head, *blocks = re.split(r"^Tree=\d+$", text.partition("\nend of trees")[0], flags=re.MULTILINE)
    header = _fields(head)
    if (
        "\nend of trees" not in text
        or not blocks
        or len(blocks) != len(header.get("tree_sizes", "").split())
    ):
        raise BaselineError(
            f"{where}: not a complete LightGBM text model; train again or restore it"
        )
    due = {"num_class": str(len(CLASS_NAMES)), "num_tree_per_iteration": str(len(CLASS_NAMES))}
    due |= {"feature_names": " ".join(label(name) for name in names)}
    for key, value in due.items():
        if header.get(key) != value:
            raise BaselineError(
                f"{where}: baseline of another config: {key} is {header.get(key)!r}, must be "
                f"{value!r}; use the features of the run that wrote it"
            )
    try:
        trees = [_read_tree(_fields(block), len(names)) for block in blocks]
    except ValueError as error:
        raise BaselineError(f"{where}: damaged: {error}; train again or restore the file") from None
    n_splits_K, n_leaves_K = (np.array([len(tree[i]) for tree in trees]) for i in (0, 4))
    arrays = [np.concatenate(parts) for parts in zip(*trees, strict=True)]
    return Trees(
        np.cumsum(n_splits_K) - n_splits_K, np.cumsum(n_leaves_K) - n_leaves_K, n_splits_K, *arrays
    )


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _read_tree(fields: dict[str, str], n_features: int) -> tuple[np.ndarray, ...]:
    """(feature, threshold, left, right, leaf). Raises ValueError for a tree that a walk could get
    lost in.
    """

    def read(key: str, dtype: type) -> np.ndarray:
        return np.array(fields.get(key, "").split(), dtype)

    leaf, threshold = read("leaf_value", np.float64), read("threshold", np.float64)
    feature, left, right, kind = (
        read(k, np.int64) for k in ("split_feature", "left_child", "right_child", "decision_type")
    )
    n_splits = len(leaf) - 1
    if n_splits < 0 or any(
        len(part) != n_splits for part in (threshold, feature, left, right, kind)
    ):
        raise ValueError("a tree's parts differ in length")
    if not (np.isfinite(leaf).all() and np.isfinite(threshold).all()):
        raise ValueError("a number is not finite")
    # The walk below compares with <= and adds constants; it knows nothing else.
    if (kind != NUMERIC).any() or fields.get("is_linear", "0") != "0":
        raise ValueError("a split is not a plain comparison")
    if ((feature < 0) | (feature >= n_features)).any():
        raise ValueError("a split names a feature that does not exist")
    for child in (left, right):
        if (
            (child >= n_splits)
            | (~child >= len(leaf))
            # A child after its parent: each step of a walk then goes on, and every walk ends.
            | ((child >= 0) & (child <= np.arange(n_splits)))
        ).any():
            raise ValueError("a split leads nowhere")
    return feature, threshold, left, right, leaf


def sum_leaves(trees: Trees, x_NF: np.ndarray, n_classes: int) -> np.ndarray:
    """float64 [N, C]: trees take turns over the classes."""
    out_NC = np.zeros((len(x_NF), n_classes))
    _walk(
        # LightGBM compares in float64 too, so both take the same branch.
        np.ascontiguousarray(x_NF, np.float64),
        trees.first_split_K,
        trees.first_leaf_K,
        trees.n_splits_K,
        trees.feature_S,
        trees.threshold_S,
        trees.left_S,
        trees.right_S,
        trees.leaf_V,
        out_NC,
    )
    return out_NC


@kernel
def _walk(
    x_NF: np.ndarray,
    first_split_K: np.ndarray,
    first_leaf_K: np.ndarray,
    n_splits_K: np.ndarray,
    feature_S: np.ndarray,
    threshold_S: np.ndarray,
    left_S: np.ndarray,
    right_S: np.ndarray,
    leaf_V: np.ndarray,
    out_NC: np.ndarray,
) -> None:
    for k in range(len(first_split_K)):
        first = first_split_K[k]
        for i in range(len(x_NF)):
            # -1 is leaf ~-1 = 0, the only one of a tree without a split.
            at = 0 if n_splits_K[k] else -1
            while at >= 0:
                s = first + at
                at = left_S[s] if x_NF[i, feature_S[s]] <= threshold_S[s] else right_S[s]
            out_NC[i, k % out_NC.shape[1]] += leaf_V[first_leaf_K[k] + ~at]
