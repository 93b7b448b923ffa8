"""Folds that follow time: each is fitted on what lies before its test period, and the test periods
follow each other without a gap.

What fold f tests is history to fold f + 1. So only the test period of the last fold is unread once
all folds are trained.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from hft.dataset.splits import Fraction, Periods, SplitSpec


class WalkForward(SplitSpec):
    kind: Literal["walk_forward"]
    folds: int = Field(
        ge=1, le=1_000, description="test periods of equal length, one after the other"
    )
    window: Literal["expanding", "rolling"] = Field(
        description="history of a fold: all that lies before its test period, "
        "or as much as the first fold has"
    )
    test: Fraction = Field(
        description="fraction of the loaded time, its end, that the folds test between them"
    )
    tune: Fraction = Field(
        description="fraction of a fold's history for early stopping and calibration"
    )
    select: Fraction = Field(
        description="fraction of a fold's history, its end, for the objective of a sweep"
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> WalkForward:
        if self.tune + self.select >= 1:
            raise ValueError(
                f"tune + select must be < 1, got {self.tune} + {self.select}; "
                "the rest is for training"
            )
        return self

    def periods(self, start: int, end: int) -> list[Periods]:
        first = start + round((end - start) * (1 - self.test))
        # Each edge is rounded from the range itself, so that tests meet whatever the rounding.
        edges = [first + round((end - first) * f / self.folds) for f in range(self.folds + 1)]
        return [self._fold(start, first, test) for test in pairwise(edges)]

    def _fold(self, start: int, first: int, test: tuple[int, int]) -> Periods:
        # Rolling: the history begins as much later as the test period does.
        since = start if self.window == "expanding" else start + test[0] - first
        length = test[0] - since
        tune = since + round(length * (1 - self.tune - self.select))
        select = since + round(length * (1 - self.select))
        return {
            "train": ((since, tune),),
            "tune": ((tune, select),),
            "select": ((select, test[0]),),
            "test": (test,),
        }
