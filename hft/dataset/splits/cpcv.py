"""Combinatorial purged cross-validation (AFML 12): every choice of test groups, assembled to whole
paths of tests.

Time is cut into `groups` of equal length; each of the C(N, k) folds tests k of them and trains on
the others, before and after. The last training group in time ends in `tune` and `select`, each one
block, so that no simulated trade of theirs runs into a test group; the rest of it trains. A group
is tested by C(N-1, k-1) folds, the number of paths. A distribution, not a forecast: most folds
learn from what came after their test.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import comb
from typing import Literal

from pydantic import Field, model_validator

from hft.dataset.splits import Periods, SplitSpec

MAX_FOLDS = 1_000
_FRACTION = {"gt": 0, "lt": 1}


class Cpcv(SplitSpec):
    kind: Literal["cpcv"]
    groups: int = Field(ge=2, le=100, description="N, blocks of equal time")
    test_groups: int = Field(
        ge=1, le=99, description="k, groups that each fold tests; k/N * C(N, k) paths"
    )
    tune: float = Field(
        **_FRACTION, description="fraction of a fold's last training group, before select's"
    )
    select: float = Field(
        **_FRACTION, description="fraction of a fold's last training group, its end"
    )

    @model_validator(mode="after")
    def _leaves_training(self):
        if self.test_groups >= self.groups:
            raise ValueError(f"test_groups must be < groups={self.groups}, got {self.test_groups}")
        if self.tune + self.select >= 1:
            raise ValueError(
                f"tune + select must be < 1, got {self.tune} + {self.select}; the rest is for training"
            )
        if (n := comb(self.groups, self.test_groups)) > MAX_FOLDS:
            raise ValueError(
                f"groups={self.groups} and test_groups={self.test_groups} make {n} folds, must be at most {MAX_FOLDS}; "
                "lower test_groups"
            )
        return self

    def periods(self, start: int, end: int) -> list[Periods]:
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
