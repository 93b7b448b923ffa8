"""What a list of trade returns comes to: the cost that it bears, and how far it fell.

Legend: x_N one return per trade, in time order. To add a statistic: a function in this wing, and a
test against a closed form, a slow twin or scipy.
"""

from __future__ import annotations

import numpy as np

from hft.statistics.bootstrap import Interval, mean_interval


def break_even(gross_bps_N: np.ndarray, *, seed: int) -> Interval:
    """The cost one way at which the trades earn nothing, bps: sum of gross / (2 n)."""
    # Both legs pay on the entry's notional, so net = gross - 2 x break-even holds exactly.
    return mean_interval(gross_bps_N / 2, seed=seed)


def max_drawdown(x_N: np.ndarray) -> float:
    """Largest fall of the running sum from its highest point so far, the start at 0 included; in
    x's unit, >= 0.
    """
    equity = np.concatenate([[0.0], np.cumsum(x_N)])
    return float((np.maximum.accumulate(equity) - equity).max())
