"""Barriers, and the search for the print that touches one: labels and backtests share this kernel.

In: prints, bars as an index over them (highs, lows, bounds), two prices. Out: the first touching
print and its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hft.system.kernels import kernel


@dataclass(frozen=True)
class Exits:
    """How a trade decided at each bar ends: barriers as fractions of the entry price, and the
    number of bars after which it expires.

    float64 of one value per bar, the same for longs and shorts. inf: there is no such barrier; nan:
    the distance is unknown and no trade may be opened.
    """

    # Fractions, because the entry price is known only a latency after the decision.
    take_profit: np.ndarray
    stop_loss: np.ndarray
    horizon: int


@kernel
def first_touch(
    price: np.ndarray,
    highs: np.ndarray,
    lows: np.ndarray,
    bounds: np.ndarray,
    first: int,
    stop: int,
    upper: float,
    lower: float,
) -> tuple[int, int]:
    """(index, side) of the first print of [first, stop) with price >= upper (+1) or <= lower (-1);
    (stop, 0) if there is none.

    Prints bounds[i]:bounds[i+1] belong to bar i. A bar that lies strictly inside the barriers is
    skipped whole; prints outside all bars are read one by one. inf and -inf mean no barrier. Upper
    is judged first, so the caller must refuse a distance of 0.
    """
    # Three stretches: prints before the first bar, in bars, and after the last one, which is open.
    at, side = _touch_in_prints(price, first, min(stop, bounds[0]), upper, lower)
    if side != 0:
        return at, side
    inside, inside_stop = max(first, bounds[0]), min(stop, bounds[-1])
    if inside < inside_stop:
        bar = np.searchsorted(bounds, inside, side="right") - 1
        last_bar = np.searchsorted(bounds, inside_stop, side="left") - 1
        at, side = touch_in_bars(
            price, highs, lows, bounds, bar, last_bar, inside, inside_stop, upper, lower
        )
        if side != 0:
            return at, side
    at, side = _touch_in_prints(price, max(first, bounds[-1]), stop, upper, lower)
    return (at, side) if side != 0 else (stop, 0)


@kernel
def touch_in_bars(
    price: np.ndarray,
    highs: np.ndarray,
    lows: np.ndarray,
    bounds: np.ndarray,
    bar: int,
    last_bar: int,
    first: int,
    stop: int,
    upper: float,
    lower: float,
) -> tuple[int, int]:
    """`first_touch` where print `first` is known to lie in `bar`, and print stop - 1 in
    `last_bar`.
    """
    # Most bars lie inside the barriers, and one comparison spares their prints. This is how a
    # backtest passes 1.85 G events/s (benchmarks/README.md).
    for b in range(bar, last_bar + 1):
        # The first and the last bar may touch outside of [first, stop): the prints then say no.
        if highs[b] >= upper or lows[b] <= lower:
            at, side = _touch_in_prints(
                price, max(first, bounds[b]), min(stop, bounds[b + 1]), upper, lower
            )
            if side != 0:
                return at, side
    return stop, 0


@kernel
def bar_of(bounds: np.ndarray, bar: int, at: int) -> int:
    """The bar that holds print `at`, sought from `bar`, which lies near it."""
    # Steps in place of a bisection: answers for successive decisions lie a few bars apart.
    while bounds[bar + 1] <= at:
        bar += 1
    while bounds[bar] > at:
        bar -= 1
    return bar


@kernel
def _touch_in_prints(
    price: np.ndarray, first: int, stop: int, upper: float, lower: float
) -> tuple[int, int]:
    for i in range(first, stop):
        # Inclusive, and exact: the relative slack of bars is not for labels (docs/definitions.md
        # 5.13, 5.23).
        if price[i] >= upper:
            return i, 1
        if price[i] <= lower:
            return i, -1
    return stop, 0
