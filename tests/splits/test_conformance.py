"""What every kind of split promises, over every kind and its YAML."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from hft.schema import NS_PER_DAY
from hft.spec import Room, parse
from hft.splits import ROLES, SplitError, make_periods
from tests.labels.hand import CONF, shipped
from tests.splits.hand import bars_at, labels_of

KINDS = Room("hft.splits").names()
START = 1_704_067_200_000_000_000


def spec_of(kind, **changes):
    return parse(Room("hft.splits").load(kind), shipped("splits", kind, **changes))


def test_kinds_and_yaml_files_are_the_same():
    assert sorted(p.stem for p in (CONF / "splits").glob("*.yaml")) == KINDS


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.mark.parametrize("days", [1 / 1440, 1, 30])
    def test_periods_are_disjoint_and_inside_the_range(self, kind, days):
        end = START + int(days * NS_PER_DAY)
        splits = make_periods(START, end, spec_of(kind))
        assert [s.fold for s in splits] == list(range(len(splits)))
        for split in splits:
            assert set(split.periods) <= set(ROLES[1:])
            edges = sorted(split.periods.values())
            assert edges[0][0] >= START
            assert edges[-1][1] <= end
            assert all(a < b for a, b in edges)
            assert all(a[1] <= b[0] for a, b in pairwise(edges))

    def test_the_same_range_gives_the_same_periods(self, kind):
        assert make_periods(0, NS_PER_DAY, spec_of(kind)) == make_periods(0, NS_PER_DAY, spec_of(kind))

    @pytest.mark.parametrize("seed", [0, 1])
    def test_no_row_of_a_role_has_a_label_that_reaches_another_role(self, kind, seed):
        """The property that purging is for, on bars at random times whose labels end at random times."""
        rng = np.random.default_rng(seed)
        bars = bars_at(np.sort(rng.integers(0, 10_000, 2000)))
        t_end = [int(t) if keep else None for t, keep in zip(*_random_ends(rng, bars), strict=True)]
        labels = labels_of(t_end)
        for split in make_periods(0, 10_000, spec_of(kind, embargo=7)):
            role_T = split.role_T(bars, labels)
            assert role_T.dtype == np.int8
            assert role_T.shape == (2000,)
            for role, (start, end) in split.periods.items():
                mine = role_T == ROLES.index(role)
                assert mine.any()
                assert not (mine & ~split.rows(role, bars)).any()
                assert labels["y"].to_numpy()[mine].tolist() == [0] * mine.sum()
                assert all(start <= t < end for t in bars["ts"].to_numpy()[mine])
                assert all(labels["t_end"][int(i)] < end for i in np.flatnonzero(mine))

    def test_every_bar_of_a_period_can_be_predicted_labelled_or_not(self, kind):
        bars = bars_at(range(1000))
        for split in make_periods(0, 1000, spec_of(kind)):
            for role, (start, end) in split.periods.items():
                assert bars.filter(pl.Series(split.rows(role, bars)))["ts"].to_list() == list(range(start, end))

    def test_a_range_that_cannot_be_split_is_refused(self, kind):
        with pytest.raises(SplitError, match=r"too short to be split; load more data \(data.start, data.end\)"):
            make_periods(START, START + 1, spec_of(kind))

    def test_an_embargo_under_zero_is_refused(self, kind):
        with pytest.raises(ValueError, match="embargo"):
            spec_of(kind, embargo=-1)


def _random_ends(rng, bars):
    return bars["ts"].to_numpy() + rng.integers(1, 300, bars.height), rng.random(bars.height) < 0.9
