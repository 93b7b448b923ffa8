"""How much each label says that others do not: average uniqueness, attributed return, time decay
(AFML 4).

A label of bar i lives in bars i+1 .. e, where e is the bar in which it ends; c_t labels live in bar
t.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from hft.system.kernels import kernel


def end_bars(bars: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
    """int64[T]: row of the bar in which each label ends, always after its own; -1 where there is no
    label.
    """
    t_end = labels["t_end"].fill_null(-1).to_numpy()
    at = np.searchsorted(bars["ts"].to_numpy(), t_end, side="left")
    # A print that ties with the close of the deciding bar still lies in a later bar, which a time
    # cannot tell (docs/definitions.md 5.22).
    return np.where(t_end < 0, -1, np.maximum(at, np.arange(at.size) + 1))


def average_uniqueness(ends: np.ndarray) -> np.ndarray:
    """u_i = mean over the label's bars of 1 / c_t, in (0, 1]; 0 where there is no label."""
    length = np.where(ends < 0, 1, ends - np.arange(ends.size))
    return _shared(ends, np.ones(ends.size)) / length


def attributed_returns(ends: np.ndarray, close: np.ndarray) -> np.ndarray:
    """|sum of r_t / c_t over the label's bars|, r being log returns (AFML 4.10); 0 where there is
    no label.
    """
    return np.abs(_shared(ends, np.diff(np.log(close), prepend=np.log(close[:1]))))


def time_decay(uniqueness: np.ndarray, decay: float) -> np.ndarray:
    """Factor per row, linear in the cumulated uniqueness: 1 at the newest label, `decay` at the
    oldest (AFML 4.11).

    A negative `decay` takes all weight from the oldest labels: that share of them, by uniqueness.
    """
    age = np.cumsum(uniqueness)
    if not age.size or age[-1] == 0:
        return np.ones(age.size)
    # AFML 4.11: a negative decay puts the line's zero where that share of uniqueness has passed.
    slope = (1 - decay) / age[-1] if decay >= 0 else 1 / ((1 + decay) * age[-1])
    return np.maximum(0.0, 1 + slope * (age - age[-1]))


@kernel
def _shared(ends: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per label the sum of values[t] / c_t over its bars, from running sums; 0 where ends < 0."""
    n = ends.size
    # Births and deaths per bar, then running sums: linear in bars, where adding up each label's
    # bars would be bars times horizon.
    change = np.zeros(n + 1, np.int64)
    for i in range(n):
        if ends[i] >= 0:
            change[i + 1] += 1
            change[ends[i] + 1] -= 1
    total, alive, cumulated = 0.0, 0, np.empty(n)
    for t in range(n):
        alive += change[t]
        if alive > 0:
            total += values[t] / alive
        cumulated[t] = total
    out = np.zeros(n)
    for i in range(n):
        if ends[i] >= 0:
            out[i] = cumulated[ends[i]] - cumulated[i]
    return out
