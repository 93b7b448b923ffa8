"""The volatility that scales barriers (docs/definitions.md 5.11): causal, and started anew by each
segment.
"""

from __future__ import annotations

import numpy as np

from hft.system.kernels import kernel


@kernel
def ewma_volatility(close: np.ndarray, segment: np.ndarray, span: int) -> np.ndarray:
    """s_t as a fraction per bar, from the log returns up to and including bar t; nan for the first
    `span` returns of a segment.

    s2 starts at the first r^2 and is not demeaned. A return across a gap counts for neither side.
    """
    a = 2.0 / (span + 1.0)
    out = np.full(close.size, np.nan)
    n_returns, variance = 0, 0.0
    for t in range(1, close.size):
        if segment[t] != segment[t - 1]:
            n_returns = 0
            continue
        r = np.log(close[t] / close[t - 1])
        # docs/definitions.md 5.11. The first r^2 weighs long: values near the start of a range were
        # up to 56 % off.
        variance = r * r if n_returns == 0 else (1 - a) * variance + a * r * r
        n_returns += 1
        if n_returns > span:
            out[t] = np.sqrt(variance)
    return out
