from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from hft.dataset.splits import make_periods
from hft.spec import SpecError
from tests.dataset.splits.hand import bars_at, labels_of, paths_of
from tests.dataset.splits.test_conformance import spec_of


def cpcv(**changes):
    return spec_of(
        "cpcv",
        **{"groups": 6, "test_groups": 2, "tune": 0.4, "select": 0.4, "embargo": 0} | changes,
    )


def test_one_fold_in_full():
    splits = make_periods(0, 600, cpcv())
    (split,) = [s for s in splits if s.periods["test"] == ((100, 200), (300, 400))]
    assert split.periods["train"] == ((0, 100), (200, 300), (400, 500), (500, 520))
    assert (split.periods["tune"], split.periods["select"]) == (((520, 560),), ((560, 600),))
    assert split.train_reads() == [(0, 100), (200, 300), (400, 600)]


@pytest.mark.parametrize(("n", "k"), [(2, 1), (4, 1), (4, 3), (6, 2), (7, 3)])
def test_every_choice_of_groups_is_a_fold_and_every_group_is_tested_as_often(n, k):
    splits = make_periods(3, 3 + 997, cpcv(groups=n, test_groups=k))
    assert len(splits) == comb(n, k)
    groups = sorted({block for split in splits for block in split.periods["test"]})
    assert len(groups) == n
    assert [split.periods["test"] for split in splits] == list(combinations(groups, k))
    paths = paths_of(splits)
    assert len(paths) == k * comb(n, k) // n
    assert all([block for _, block in parts] == groups for parts in paths)
    assert len({part for parts in paths for part in parts}) == k * comb(n, k)


def test_paths_are_those_of_the_book():
    # AFML figure 12.1: six groups, two tested; the j-th fold that tests a group gives it to path j.
    paths = paths_of(make_periods(0, 600, cpcv()))
    folds = [[fold for fold, _ in parts] for parts in paths]
    assert folds == [
        [0, 0, 1, 2, 3, 4],
        [1, 5, 5, 6, 7, 8],
        [2, 6, 9, 9, 10, 11],
        [3, 7, 10, 12, 12, 13],
        [4, 8, 11, 13, 14, 14],
    ]


def test_training_around_a_test_group_is_purged_before_it_and_embargoed_behind_it():
    splits = make_periods(0, 600, cpcv(embargo=7))
    (split,) = [s for s in splits if s.periods["test"] == ((100, 200), (200, 300))]
    role_T = split.role_T(bars_at(range(600)), labels_of([t + 5 for t in range(600)])).tolist()
    # The two test groups count as one: no label between them is lost.
    assert role_T[:95] == [1] * 95
    assert role_T[95:107] == [0] * 12
    assert role_T[107:295] == [4] * 188
    assert role_T[295:307] == [0] * 12
    assert role_T[307:515] == [1] * 208


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_groups": 6}, r"test_groups must be < groups=6, got 6"),
        ({"tune": 0.6}, r"tune \+ select must be < 1, got 0.6 \+ 0.4"),
        (
            {"groups": 30, "test_groups": 15},
            r"make 155117520 folds, must be at most 1000; lower test_groups",
        ),
    ],
)
def test_what_makes_no_fold_is_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        cpcv(**changes)
