"""Makes one Dataset of aligned arrays from BARS, FEATURES and LABELS: what a model sees, over the
whole loaded range.

Shapes: T bars, F features. Rows are matched by `bar` alone, so the three frames must hold the same
bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from hft.spec import UserError


class DatasetError(UserError):
    """Frames that do not describe the same bars."""


@dataclass(frozen=True)
class Dataset:
    x_TF: np.ndarray  # float32, nan where unknown
    y_T: np.ndarray  # int64, -1 where there is no label
    w_T: np.ndarray  # float32, raw label weights, 0 where there is no label
    valid_T: np.ndarray  # bool, every feature known and finite
    segment_T: np.ndarray  # int32
    bar_T: np.ndarray  # int64
    ts_T: np.ndarray  # int64 ns
    names: tuple[str, ...]  # of the features, in column order


def to_dataset(bars: pl.DataFrame, features: pl.DataFrame, labels: pl.DataFrame) -> Dataset:
    """DatasetError when bars are not consecutive, or when the frames hold other bars."""
    bar_T = bars["bar"].to_numpy()
    # A window of a selection would bridge the holes as if neighbours stood there.
    if np.any(np.diff(bar_T) != 1):
        at = int(np.flatnonzero(np.diff(bar_T) != 1)[0])
        raise DatasetError(
            f"dataset: bars must be consecutive, got bar {bar_T[at + 1]} after bar {bar_T[at]}; "
            "give the whole range and choose rows by their role"
        )
    _check_same_bars(bar_T, features, "features")
    _check_same_bars(bar_T, labels, "labels")
    x = features.drop("bar")
    # order="c": a window of bars is one contiguous block of memory. writable: torch shares an
    # array's memory, and warns where it may not be written.
    x_TF = x.with_columns(pl.all().cast(pl.Float32).fill_null(float("nan"))).to_numpy(
        order="c", writable=True
    )
    return Dataset(
        x_TF=x_TF,
        y_T=labels["y"].cast(pl.Int64).fill_null(-1).to_numpy(writable=True),
        w_T=labels["weight"].cast(pl.Float32).fill_null(0.0).to_numpy(writable=True),
        # Finite, not only known: one inf would make every output of its window nan.
        valid_T=np.isfinite(x_TF).all(axis=1),
        segment_T=bars["segment"].cast(pl.Int32).to_numpy(),
        bar_T=bar_T,
        ts_T=bars["ts"].to_numpy(),
        names=tuple(x.columns),
    )


def hide_rows(dataset: Dataset, seen_T: np.ndarray) -> Dataset:
    """`dataset` in which rows outside `seen_T` count as unknown, so that no usable window reaches
    into them.
    """
    return replace(dataset, valid_T=dataset.valid_T & seen_T)


def usable(dataset: Dataset, receptive_field: int) -> np.ndarray:
    """bool[T]: whether the `receptive_field` bars that end at t are all valid and in one
    segment.
    """
    at = np.arange(dataset.valid_T.size)
    new_segment = np.diff(dataset.segment_T, prepend=dataset.segment_T[:1]) != 0
    # The earliest bar that a window may reach back to: after the last invalid bar, inside the
    # segment.
    reach = np.maximum(np.where(new_segment, at, 0), np.where(dataset.valid_T, 0, at + 1))
    return at - np.maximum.accumulate(reach) + 1 >= receptive_field


def _check_same_bars(bar_T: np.ndarray, frame: pl.DataFrame, name: str) -> None:
    other = frame["bar"].to_numpy()
    if np.array_equal(bar_T, other):
        return
    same = min(bar_T.size, other.size)
    differs = np.flatnonzero(bar_T[:same] != other[:same])
    where = f"the shorter one ends at row {same}"
    if differs.size:
        row = differs[0]
        where = f"first difference at row {row}: bar {bar_T[row]} against {other[row]}"
    raise DatasetError(
        f"dataset: bars ({bar_T.size} rows) and {name} ({other.size} rows) must hold the same "
        f"bars; {where}; build both from the same ticks and bars"
    )
