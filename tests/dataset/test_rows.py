from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.dataset.rows import Dataset, DatasetError, hide_rows, to_dataset, usable
from hft.schema import LABELS


def frames(n=6, first=10):
    bars = pl.DataFrame(
        {
            "bar": range(first, first + n),
            "segment": [0, 0, 0, 1, 1, 1][:n],
            "ts": range(100, 100 + n),
        }
    )
    features = pl.DataFrame(
        {"bar": bars["bar"], "ofi": [None, 1.0, 2.0, None, 4.0, 5.0][:n], "spread": [0.5] * n},
        schema={"bar": pl.Int64, "ofi": pl.Float32, "spread": pl.Float32},
    )
    y = [0, 1, 2, None, 1, None][:n]
    weight = [None if v is None else 0.5 + v for v in y]
    labels = pl.DataFrame(
        {"bar": bars["bar"], "y": y, "t_end": y, "ret_bps": y, "weight": weight}, schema=LABELS
    )
    return bars, features, labels


def test_rows_names_and_types():
    dataset = to_dataset(*frames())
    assert dataset.names == ("ofi", "spread")
    nan = np.nan
    np.testing.assert_array_equal(
        dataset.x_TF, np.array([[nan, 1, 2, nan, 4, 5], [0.5] * 6], np.float32).T
    )
    assert dataset.y_T.tolist() == [0, 1, 2, -1, 1, -1]
    assert dataset.w_T.tolist() == [0.5, 1.5, 2.5, 0.0, 1.5, 0.0]
    assert dataset.valid_T.tolist() == [False, True, True, False, True, True]
    assert dataset.segment_T.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.bar_T.tolist() == [10, 11, 12, 13, 14, 15]
    assert dataset.ts_T.tolist() == [100, 101, 102, 103, 104, 105]
    types = {
        name: str(getattr(dataset, name).dtype)
        for name in ("x_TF", "y_T", "w_T", "valid_T", "segment_T", "ts_T")
    }
    assert types == dict(
        zip(types, ["float32", "int64", "float32", "bool", "int32", "int64"], strict=True)
    )


def test_arrays_are_contiguous_and_writable_so_that_torch_shares_them():
    dataset = to_dataset(*frames())
    for array in (dataset.x_TF, dataset.y_T, dataset.w_T):
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_an_infinite_feature_is_not_valid():
    bars, features, labels = frames()
    wild = features.with_columns(
        spread=pl.when(pl.col("bar") == 11).then(np.inf).otherwise("spread").cast(pl.Float32)
    )
    assert to_dataset(bars, wild, labels).valid_T.tolist() == [
        False,
        False,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:-1], r"bars \(6 rows\) and \w+ \(5 rows\) .* the shorter one ends at row 5"),
        (lambda f: f.reverse(), r"first difference at row 0: bar 10 against 15"),
        (
            lambda f: f.with_columns(pl.col("bar") + 1),
            r"first difference at row 0: bar 10 against 11",
        ),
    ],
)
def test_frames_of_other_bars_are_refused(which, change, message):
    made = list(frames())
    made[which] = change(made[which])
    with pytest.raises(DatasetError, match=message):
        to_dataset(*made)


def test_a_selection_of_bars_is_refused_as_windows_would_bridge_the_hole():
    holes = [f.filter(pl.col("bar") != 12) for f in frames()]
    with pytest.raises(DatasetError, match="bars must be consecutive, got bar 13 after bar 11"):
        to_dataset(*holes)


def test_windows_that_reach_into_hidden_rows_are_not_usable():
    n = np.arange(10)
    x_TF = np.zeros((10, 1), np.float32)
    dataset = Dataset(x_TF, n, n, np.ones(10, bool), np.zeros(10, np.int32), n, n, ("a",))
    hidden = hide_rows(dataset, ~np.isin(n, [4, 5]))
    assert np.flatnonzero(usable(hidden, 3)).tolist() == [2, 3, 8, 9]
    assert np.flatnonzero(usable(dataset, 3)).tolist() == list(range(2, 10))


def naive_usable(valid, segment, receptive_field):
    return [
        t + 1 >= receptive_field
        and all(valid[t + 1 - receptive_field : t + 1])
        and len(set(segment[t + 1 - receptive_field : t + 1])) == 1
        for t in range(len(valid))
    ]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([True] * 4 + [False]), st.sampled_from([0] * 5 + [1]))),
    st.integers(1, 5),
)
def test_usable_equals_looking_at_every_window(rows, receptive_field):
    valid = np.array([v for v, _ in rows], bool)
    segment = np.cumsum(np.array([g for _, g in rows], np.int32)).astype(np.int32)
    n = np.arange(len(rows))
    dataset = Dataset(np.zeros((len(rows), 1), np.float32), n, n, valid, segment, n, n, ("a",))
    assert usable(dataset, receptive_field).tolist() == naive_usable(
        valid, segment.tolist(), receptive_field
    )
