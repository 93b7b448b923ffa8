from __future__ import annotations

import numpy as np
import pytest

from hft.dataset.splits import MIN_ROWS, Split, SplitError, check_rows, make_periods
from hft.spec import SpecError
from tests.dataset.splits.hand import bars_at, labels_of
from tests.dataset.splits.test_conformance import spec_of


def holdout(**changes):
    return spec_of(
        "holdout",
        **{"train": 0.5, "tune": 0.2, "select": 0.2, "test": 0.1, "embargo": 0, "final": 0.0}
        | changes,
    )


def test_periods_are_the_fractions_of_the_range_in_order():
    (split,) = make_periods(1000, 2000, holdout())
    expected = {
        "train": ((1000, 1500),),
        "tune": ((1500, 1700),),
        "select": ((1700, 1900),),
        "test": ((1900, 2000),),
    }
    assert split == Split(0, expected, 0, (0,))


def test_periods_share_their_edges_whatever_the_rounding():
    (split,) = make_periods(3, 3 + 997, holdout(train=0.55, tune=0.15, select=0.15, test=0.15))
    edges = [split.hull(role) for role in split.periods]
    assert [a[1] for a in edges[:-1]] == [b[0] for b in edges[1:]]
    assert (edges[0][0], edges[-1][1]) == (3, 1000)


@pytest.mark.parametrize("train", [0.6, 0.4])
def test_fractions_that_do_not_sum_to_one_are_refused(train):
    with pytest.raises(
        SpecError, match=r"train, tune, select and test must sum to 1, got .* = (1.1|0.9)"
    ):
        holdout(train=train)


@pytest.mark.parametrize(("role", "value"), [("test", 0.0), ("tune", -0.1), ("train", 1.0)])
def test_every_role_needs_a_share(role, value):
    with pytest.raises(SpecError, match=role):
        holdout(**{role: value})


def codes(split, t_end, n=100):
    return split.role_T(bars_at(range(n)), labels_of(t_end)).tolist()


def test_rows_whose_label_reaches_the_next_period_are_removed():
    (split,) = make_periods(0, 100, holdout())
    # A label five bars long: the last five rows of each period would end in the next one, or past
    # the range.
    expected = [1] * 45 + [0] * 5 + [2] * 15 + [0] * 5 + [3] * 15 + [0] * 5 + [4] * 5 + [0] * 5
    assert codes(split, [t + 5 for t in range(100)]) == expected


def test_a_label_that_ends_on_the_edge_itself_is_removed():
    (split,) = make_periods(0, 100, holdout())
    t_end = [t + 1 for t in range(100)]
    assert codes(split, t_end)[49] == 0
    assert codes(split, [*t_end[:49], 49, *t_end[50:]])[49] == 1


def test_a_label_that_reaches_beyond_the_next_period_is_removed():
    (split,) = make_periods(0, 100, holdout())
    t_end = [t + 1 for t in range(100)]
    t_end[3] = 95
    assert codes(split, t_end)[2:5] == [1, 0, 1]


def test_the_embargo_leaves_out_bars_after_each_period_and_predictions_keep_them():
    (split,) = make_periods(0, 100, holdout(embargo=4))
    expected = [1] * 50 + [0] * 4 + [2] * 16 + [0] * 4 + [3] * 16 + [0] * 4 + [4] * 6
    assert codes(split, list(range(100))) == expected
    assert split.rows("tune", bars_at(range(100))).sum() == 20


def test_unlabelled_rows_have_no_role_and_are_still_predicted():
    (split,) = make_periods(0, 100, holdout())
    t_end = [None if t % 2 else t for t in range(100)]
    assert codes(split, t_end)[:4] == [1, 0, 1, 0]
    assert split.rows("train", bars_at(range(100))).sum() == 50


def test_labels_of_other_bars_are_refused():
    (split,) = make_periods(0, 100, holdout())
    with pytest.raises(SplitError, match=r"bars \(100 rows\) and labels \(99 rows\)"):
        split.role_T(bars_at(range(100)), labels_of(list(range(99))))


def test_too_few_rows_are_refused_with_their_counts_and_the_remedies():
    (split,) = make_periods(0, 1000, holdout(embargo=10))
    bars = bars_at(range(1000))
    labels = labels_of([None if 500 <= t < 530 else t + 5 for t in range(1000)])
    usable_T = np.arange(1000) >= 660
    usable_T[:200] = True
    with pytest.raises(SplitError) as caught:
        check_rows(split, bars, labels, usable_T, roles=("train", "tune", "select", "test"))
    shortage, remedy = str(caught.value).splitlines()
    # 530..694 keep a label that ends in the period; of those 660..694 have all features.
    assert shortage == (
        "splits: tune has 35 usable rows, needs at least 50; of its 200 bars 30 have no label, "
        "5 are purged or embargoed, 130 lack known features over the receptive field"
    )
    assert remedy.startswith(
        "too few bars for the labels' horizon or the model's receptive field: load more data"
    )
    assert MIN_ROWS == 50
    check_rows(split, bars, labels, usable_T, roles=("train", "select", "test"))
