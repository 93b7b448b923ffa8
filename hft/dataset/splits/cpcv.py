"""Combinatorial purged cross-validation (AFML 12): a fold for every choice of test groups, joined
to paths that each test the whole range.

Time is cut into `groups` of equal length. Each of the C(N, k) folds tests k groups and trains on
the others, before and after. The last training group in time ends in `tune` and `select`, one block
each, so that none of their simulated trades runs into a test group; the rest of that group trains.
Each group is tested by C(N-1, k-1) folds, which is the number of paths. The result is a
distribution and no forecast: most folds learn from what came after their test.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import comb
from typing import Literal

from pydantic import Field, model_validator

from hft.dataset.splits import Fraction, Periods, SplitSpec

# Each fold is a training of its own, and C(30, 15) would be 155 million of them.
MAX_FOLDS = 1_000


class Cpcv(SplitSpec):
    kind: Literal["cpcv"]
    groups: int = Field(ge=2, le=100, description="N, blocks of equal time")
    test_groups: int = Field(
        ge=1, le=99, description="k, groups that each fold tests; k/N * C(N, k) paths"
    )
    tune: Fraction = Field(description="fraction of a fold's last training group, before select's")
    select: Fraction = Field(description="fraction of a fold's last training group, its end")

    @model_validator(mode="after")
    def _leaves_training(self) -> Cpcv:
        if self.test_groups >= self.groups:
            raise ValueError(f"test_groups must be < groups={self.groups}, got {self.test_groups}")
        if self.tune + self.select >= 1:
            raise ValueError(
                f"tune + select must be < 1, got {self.tune} + {self.select}; "
                "the rest is for training"
            )
        if (n := comb(self.groups, self.test_groups)) > MAX_FOLDS:
            raise ValueError(
                f"groups={self.groups} and test_groups={self.test_groups} make {n} folds, must be "
                f"at most {MAX_FOLDS}; lower test_groups"
            )
        return self

    def periods(self, start: int, end: int) -> list[Periods]:
        # Each edge is rounded from the range itself, so that blocks meet whatever the rounding.
        blocks = list(
            pairwise(start + round((end - start) * g / self.groups) for g in range(self.groups + 1))
        )
        return [
            self._fold(blocks, tested)
            for tested in combinations(range(self.groups), self.test_groups)
        ]

    def _fold(self, blocks: list[tuple[int, int]], tested: tuple[int, ...]) -> Periods:
        *others, (first, last) = [block for g, block in enumerate(blocks) if g not in tested]
        tune = first + round((last - first) * (1 - self.tune - self.select))
        select = first + round((last - first) * (1 - self.select))
        return {
            "train": (*others, (first, tune)),
            "tune": ((tune, select),),
            "select": ((select, last),),
            "test": tuple(blocks[g] for g in tested),
        }
