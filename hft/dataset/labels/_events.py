"""Picks the bars that carry a decision: every bar, every n-th, or those where the price has moved
(CUSUM filter, AFML 2.5.2.1).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.labels._volatility import ewma_volatility
from hft.spec import Spec
from hft.system.kernels import kernel


class Events(Spec):
    every: int = Field(
        ge=1, le=1_000_000, description="of the bars that cusum lets through, every n-th; 1: each"
    )
    cusum: float = Field(
        ge=0,
        le=1_000,
        description="cumulated return that makes a bar an event, in past sigmas per bar; "
        "0: any bar is one",
    )
    span: int = Field(ge=1, le=1_000_000, description="span of the EWMA of that sigma, bars")

    def pick(self, bars: pl.DataFrame) -> np.ndarray:
        """bool[T]: true at events, which depend on no later bar. Each segment counts and cumulates
        anew.
        """
        close, segment = bars["close"].to_numpy(), bars["segment"].to_numpy()
        sigma = ewma_volatility(close, segment, self.span) if self.cusum else np.zeros(close.size)
        return _pick(close, segment, sigma, self.cusum, self.every)


@kernel
def _pick(
    close: np.ndarray, segment: np.ndarray, sigma: np.ndarray, multiple: float, every: int
) -> np.ndarray:
    """The symmetric CUSUM filter: a sum of returns that reaches multiple * sigma makes an event and
    starts anew.

    sigma is that of the bar before, so that a jump is not measured by itself. There is no event
    while it is unknown or zero.
    """
    out = np.zeros(close.size, np.bool_)
    up, down, n_seen = 0.0, 0.0, 0
    for t in range(close.size):
        # Without the filter every bar is an event, also the first of a segment, which has no
        # return.
        is_event = multiple == 0
        if t == 0 or segment[t] != segment[t - 1]:
            up, down, n_seen = 0.0, 0.0, 0
        elif multiple > 0 and sigma[t - 1] > 0:
            r, h = np.log(close[t] / close[t - 1]), multiple * sigma[t - 1]
            # s+ and s- of docs/definitions.md 2; only the sum that reached h restarts.
            up, down = max(0.0, up + r), min(0.0, down + r)
            if up >= h:
                up, is_event = 0.0, True
            elif down <= -h:
                down, is_event = 0.0, True
        if is_event:
            out[t] = n_seen % every == 0
            n_seen += 1
    return out
