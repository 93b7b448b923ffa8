"""One split into four periods in time order, as fractions of the loaded range."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal

from pydantic import Field, model_validator

from hft.dataset.splits import Periods, SplitSpec

_FRACTION = {"gt": 0, "lt": 1}
_ROLES = ("train", "tune", "select", "test")


class Holdout(SplitSpec):
    kind: Literal["holdout"]
    train: float = Field(
        **_FRACTION, description="fraction of the loaded time that weights are fitted on"
    )
    tune: float = Field(
        **_FRACTION, description="fraction for early stopping, calibration and the threshold"
    )
    select: float = Field(**_FRACTION, description="fraction for the objective of a sweep")
    test: float = Field(**_FRACTION, description="fraction that only backtest.py reads")

    @model_validator(mode="after")
    def _sums_to_one(self):
        if abs(sum(self._fractions()) - 1) > 1e-9:
            raise ValueError(
                f"train, tune, select and test must sum to 1, got {' + '.join(map(str, self._fractions()))} "
                f"= {sum(self._fractions()):.6g}"
            )
        return self

    def periods(self, start: int, end: int) -> list[Periods]:
        inner = list(accumulate(self._fractions()))[:-1]
        edges = [start, *(start + round((end - start) * f) for f in inner), end]
        return [{role: (block,) for role, block in zip(_ROLES, pairwise(edges), strict=True)}]

    def _fractions(self) -> list[float]:
        return [getattr(self, role) for role in _ROLES]
