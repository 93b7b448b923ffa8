"""One fold: four periods in time order, as fractions of the loaded range."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal

from pydantic import Field, model_validator

from hft.dataset.splits import Fraction, Periods, SplitSpec

_ROLES = ("train", "tune", "select", "test")


class Holdout(SplitSpec):
    kind: Literal["holdout"]
    train: Fraction = Field(description="fraction of the loaded time that weights are fitted on")
    tune: Fraction = Field(description="fraction for early stopping, calibration and the threshold")
    select: Fraction = Field(description="fraction for the objective of a sweep")
    test: Fraction = Field(description="fraction that only a backtest reads")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Holdout:
        # Sums of decimal fractions miss 1 by some 1e-16.
        if abs(sum(self._fractions()) - 1) > 1e-9:
            raise ValueError(
                "train, tune, select and test must sum to 1, got "
                f"{' + '.join(map(str, self._fractions()))} = {sum(self._fractions()):.6g}"
            )
        return self

    def periods(self, start: int, end: int) -> list[Periods]:
        inner = list(accumulate(self._fractions()))[:-1]
        # The range's own end is the last edge, because the sum may round to one nanosecond less.
        edges = [start, *(start + round((end - start) * f) for f in inner), end]
        return [{role: (block,) for role, block in zip(_ROLES, pairwise(edges), strict=True)}]

    def _fractions(self) -> list[float]:
        return [getattr(self, role) for role in _ROLES]
