from __future__ import annotations

import pytest

from hft.dataset.splits import make_periods, reads_until
from hft.spec import SpecError
from tests.dataset.splits.test_conformance import spec_of


def walk_forward(**changes):
    numbers = {
        "folds": 3,
        "window": "expanding",
        "test": 0.3,
        "tune": 0.2,
        "select": 0.1,
        "embargo": 0,
    }
    return spec_of("walk_forward", **numbers | changes)


def test_an_expanding_window_starts_with_the_range_and_ends_where_its_test_starts():
    splits = make_periods(0, 1000, walk_forward())
    assert [s.periods for s in splits] == [
        {
            "train": ((0, 490),),
            "tune": ((490, 630),),
            "select": ((630, 700),),
            "test": ((700, 800),),
        },
        {
            "train": ((0, 560),),
            "tune": ((560, 720),),
            "select": ((720, 800),),
            "test": ((800, 900),),
        },
        {
            "train": ((0, 630),),
            "tune": ((630, 810),),
            "select": ((810, 900),),
            "test": ((900, 1000),),
        },
    ]


def test_a_rolling_window_keeps_the_length_of_the_first():
    splits = make_periods(0, 1000, walk_forward(window="rolling"))
    assert [s.periods["train"] for s in splits] == [((0, 490),), ((100, 590),), ((200, 690),)]
    assert [s.periods["select"] for s in splits] == [((630, 700),), ((730, 800),), ((830, 900),)]


@pytest.mark.parametrize("window", ["expanding", "rolling"])
@pytest.mark.parametrize("folds", [1, 4, 7])
def test_tests_follow_each_other_to_the_end_whatever_the_rounding(folds, window):
    splits = make_periods(3, 1000, walk_forward(folds=folds, window=window))
    tests = [split.hull("test") for split in splits]
    assert len(tests) == folds
    assert [a[1] for a in tests[:-1]] == [b[0] for b in tests[1:]]
    assert tests[-1][1] == 1000
    assert max(b - a for a, b in tests) - min(b - a for a, b in tests) <= 1
    # No fold reads its own test or anything behind it; all together leave the last test unread.
    assert all(split.train_reads()[-1][1] == split.hull("test")[0] for split in splits)
    assert reads_until(splits) == tests[-1][0]


def test_one_fold_is_a_holdout():
    (split,) = make_periods(0, 1000, walk_forward(folds=1, test=0.15, tune=0.2, select=0.2))
    holdout = {"train": 0.51, "tune": 0.17, "select": 0.17, "test": 0.15, "embargo": 0}
    assert split == make_periods(0, 1000, spec_of("holdout", **holdout))[0]


def test_history_without_training_is_refused():
    with pytest.raises(SpecError, match=r"tune \+ select must be < 1, got 0.5 \+ 0.5"):
        walk_forward(tune=0.5, select=0.5)
