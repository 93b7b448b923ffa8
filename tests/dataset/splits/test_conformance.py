"""What every kind of split promises, over every kind and its YAML."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.clock import NS_PER_DAY
from hft.dataset.splits import (
    READ,
    ROLES,
    SplitError,
    make_periods,
    open_until,
    reads_until,
)
from hft.spec import Room, parse
from tests.dataset.labels.hand import CONF, shipped
from tests.dataset.splits.hand import bars_at, labels_of, paths_of
from tests.dataset.splits.naive import naive_roles

KINDS = Room("hft.dataset.splits").names()
START = 1_704_067_200_000_000_000


def spec_of(kind, **changes):
    return parse(Room("hft.dataset.splits").load(kind), shipped("splits", kind, **changes))


def blocks_of(split):
    return sorted(block for blocks in split.periods.values() for block in blocks)


def test_kinds_and_yaml_files_are_the_same():
    assert sorted(p.stem for p in (CONF / "splits").glob("*.yaml")) == KINDS


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.mark.parametrize("final", [0.0, 0.2])
    @pytest.mark.parametrize("days", [1 / 1440, 1, 30])
    def test_blocks_are_disjoint_and_inside_the_range(self, kind, days, final):
        end = START + int(days * NS_PER_DAY)
        splits = make_periods(START, end, spec_of(kind, final=final))
        assert [s.fold for s in splits] == list(range(len(splits)))
        for split in splits:
            assert set(READ) | {"test"} <= set(split.periods) <= set(ROLES[1:])
            assert all(list(blocks) == sorted(blocks) for blocks in split.periods.values())
            edges = blocks_of(split)
            assert edges[0][0] >= START
            assert edges[-1][1] <= end
            assert all(a < b for a, b in edges)
            assert all(a[1] <= b[0] for a, b in pairwise(edges))

    def test_the_same_range_gives_the_same_periods(self, kind):
        assert make_periods(0, NS_PER_DAY, spec_of(kind)) == make_periods(
            0, NS_PER_DAY, spec_of(kind)
        )

    @pytest.mark.parametrize("seed", [0, 1])
    def test_labels_of_different_roles_never_live_at_the_same_time(self, kind, seed):
        """The property that purging is for, on bars at random times whose labels end at random
        times.
        """
        rng = np.random.default_rng(seed)
        bars = bars_at(np.sort(rng.integers(0, 20_000, 3000)))
        ts = bars["ts"].to_numpy()
        t_end = [int(t) if keep else None for t, keep in zip(*_random_ends(rng, bars), strict=True)]
        labels = labels_of(t_end)
        for split in make_periods(0, 20_000, spec_of(kind, embargo=7, final=0.1)):
            role_T = split.role_T(bars, labels)
            assert role_T.dtype == np.int8
            assert role_T.shape == (3000,)
            for role in split.periods:
                mine = np.flatnonzero(role_T == ROLES.index(role))
                assert mine.size
                assert split.rows(role, bars)[mine].all()
                others = np.sort(ts[(role_T > 0) & (role_T != ROLES.index(role))])
                # No row of another role lies between a label's beginning and its end.
                ends = np.array([t_end[i] for i in mine])
                assert (
                    np.searchsorted(others, ts[mine]) == np.searchsorted(others, ends, side="right")
                ).all()

    @settings(deadline=None, derandomize=True, max_examples=25)
    @given(st.data())
    def test_roles_equal_judging_every_row_by_itself(self, kind, data):
        n = data.draw(st.integers(20, 60))
        ts = sorted(data.draw(st.lists(st.integers(0, 199), min_size=n, max_size=n)))
        t_end = [data.draw(st.sampled_from([None, t, t + 1, t + 5, t + 40])) for t in ts]
        embargo, final = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([0.0, 0.25]))
        for split in make_periods(0, 200, spec_of(kind, embargo=embargo, final=final)):
            assert split.role_T(bars_at(ts), labels_of(t_end)).tolist() == naive_roles(
                split, ts, t_end
            )

    def test_every_bar_of_a_period_can_be_predicted_labelled_or_not(self, kind):
        bars = bars_at(range(1000))
        for split in make_periods(0, 1000, spec_of(kind)):
            for role, blocks in split.periods.items():
                expected = [t for start, end in blocks for t in range(start, end)]
                assert bars.filter(pl.Series(split.rows(role, bars)))["ts"].to_list() == expected

    def test_every_path_tests_each_time_once_and_all_paths_test_the_same(self, kind):
        splits = make_periods(0, 1000, spec_of(kind))
        blocks = [[block for _, block in parts] for parts in paths_of(splits)]
        assert all(a[1] == b[0] for path in blocks for a, b in pairwise(path))
        assert all(
            (path[0][0], path[-1][1]) == (blocks[0][0][0], blocks[0][-1][1]) for path in blocks
        )
        assert sum(map(len, blocks)) == sum(len(split.periods["test"]) for split in splits)

    def test_training_reads_its_roles_and_nothing_else(self, kind):
        bars = bars_at(range(1000))
        splits = make_periods(0, 1000, spec_of(kind, final=0.2))
        for split in splits:
            roles = [split.rows(role, bars) for role in READ]
            assert (split.seen(bars) == np.any(roles, axis=0)).all()
            assert not (split.seen(bars) & split.rows("test", bars)).any()
            runs = split.train_reads()
            assert all(a[1] < b[0] for a, b in pairwise(runs))
            assert runs[-1][1] <= reads_until(splits) <= 800
        assert reads_until(splits) in [split.train_reads()[-1][1] for split in splits]

    def test_final_is_the_end_of_the_range_and_outside_of_everything_else(self, kind):
        bars = bars_at(range(1000))
        splits = make_periods(0, 1000, spec_of(kind, final=0.2))
        (last,) = [split for split in splits if "final" in split.periods]
        assert last.periods["final"] == ((800, 1000),)
        assert last.hull("select")[1] == max(split.hull("select")[1] for split in splits)
        assert last.rows("final", bars).nonzero()[0].tolist() == list(range(800, 1000))
        assert open_until(splits) == 800
        for split, plain in zip(splits, make_periods(0, 800, spec_of(kind)), strict=True):
            assert {r: b for r, b in split.periods.items() if r != "final"} == plain.periods
            role_T = split.role_T(bars, labels_of(list(range(1000))))
            assert (role_T[800:] == 0).all() or split is last
        assert open_until(make_periods(0, 1000, spec_of(kind))) == 1000

    def test_a_range_that_cannot_be_split_is_refused(self, kind):
        with pytest.raises(
            SplitError, match=r"too short to be split; load more data \(data.start, data.end\)"
        ):
            make_periods(START, START + 1, spec_of(kind))

    def test_an_embargo_under_zero_and_a_final_of_one_are_refused(self, kind):
        with pytest.raises(ValueError, match="embargo"):
            spec_of(kind, embargo=-1)
        with pytest.raises(ValueError, match="final"):
            spec_of(kind, final=1.0)


def _random_ends(rng, bars):
    return bars["ts"].to_numpy() + rng.integers(1, 300, bars.height), rng.random(bars.height) < 0.9
