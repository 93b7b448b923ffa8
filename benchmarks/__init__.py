"""Speed of hft beside the obvious alternative: sizes in, a Result out, all sides timed in one run.

To add one: write `benchmarks/<name>.py` with `measure(...) -> Result` (or a list of them where
there are several units) and its arguments FULL and QUICK; add its name to NAMES and a row to
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

NAMES = ("bars", "labels", "dense", "backtest", "training", "losses", "claims", "sweep", "start")


@dataclass(frozen=True)
class Result:
    """`rates` are in `unit`; hft's own side comes first.

    `expected` maps a side to the multiple of its rate that the own rate must exceed, and "" to a
    plain number; where `cost` is true the own rate must stay under them. `spread` has standard
    deviations where the rates are scores instead of speeds.
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
        """Hft's own side as a multiple of `side`."""
        if self.spread:
            above = self.own - self.rates[side]
            return f"{abs(above):.4f} {'above' if above > 0 else 'below'} it"
        return f"{self.ratio(side):.3g} times it"

    def met(self, *sides: str) -> bool:
        """Whether all expectations are met, or those about `sides`."""
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
    """Median seconds of each side, and its output.

    The first call of each side is not timed, because it compiles and fills caches. Then the sides
    take turns, so that other work on the machine slows all of them alike.
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
