"""Speed of hft beside the obvious alternative: sizes in, a Result out, all sides timed in one run.

To add one: `benchmarks/<name>.py` with `measure(...) -> Result`, or a list of them where there are
several units, and its arguments FULL and QUICK, its name in NAMES, a row in
tests/test_benchmarks.py. Every `measure` raises when its sides disagree on the result. This module
imports nothing heavy: `benchmarks.training` runs where only torch is installed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Side = TypeVar("Side", bound=Hashable)

NAMES = ("bars", "labels", "dense", "backtest", "training", "losses", "claims", "sweep")


@dataclass(frozen=True)
class Result:
    """`rates` in `unit`, hft's own side first. `expected` is what that rate must exceed: a multiple
    of another side's, or with the key "" a plain number. `spread` has the standard deviations where
    the rates are no speeds but scores.
    """

    name: str
    unit: str
    rates: dict[str, float]
    data: str
    expected: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    cost: bool = False

    @property
    def own(self) -> float:
        return next(iter(self.rates.values()))

    def ratio(self, side: str) -> float:
        return self.own / self.rates[side]

    def shown(self, side: str) -> str:
        rate = self.rates[side]
        number = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        if self.spread:
            number = f"{rate:.4f} +- {self.spread[side]:.4f}"
        return f"{number} {self.unit}"

    def compared(self, side: str) -> str:
        """What hft's own side is to `side`."""
        if self.spread:
            above = self.own - self.rates[side]
            return f"{abs(above):.4f} {'above' if above > 0 else 'below'} it"
        return f"{self.ratio(side):.3g} times it"

    def met(self, *sides: str) -> bool:
        """Of all expectations, or of those of `sides`."""
        found = {side: self.ratio(side) if side else self.own for side in sides or self.expected}
        apart = [value - self.expected[side] for side, value in found.items()]
        return all(x < 0 if self.cost else x > 0 for x in apart)

    def plain(self) -> dict[str, Any]:
        others = list(self.rates)[1:]
        return {
            "unit": self.unit,
            "rates": {side: _rounded(rate) for side, rate in self.rates.items()},
            "ratios": {side: _rounded(self.ratio(side)) for side in others},
            "spread": {side: _rounded(sd) for side, sd in self.spread.items()},
            "expected": {side or "own": least for side, least in self.expected.items()},
            "met": self.met() if self.expected else None,
            "cost": self.cost,
            "data": self.data,
            "details": self.details,
        }


@dataclass(frozen=True)
class Timed:
    seconds: float
    output: Any


def race(sides: dict[Side, Callable[[], Any]], *, repeats: int) -> dict[Side, Timed]:
    """Median seconds of each side and its output. The first call of each (compilation, caches) is
    not timed; then the sides take turns, so that a machine busy with other work slows all of them
    alike.
    """
    outputs = {side: run() for side, run in sides.items()}
    seconds: dict[Side, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            started = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - started)
    return {side: Timed(statistics.median(seconds[side]), outputs[side]) for side in sides}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
