"""Rolling moments, computed afresh for every window.

Running sums of products lose the digits of small values once a large one has passed through, and
never return to exactly zero. Starting over costs 0.1 s per million bars at a window of 50, and
makes the value of a window depend on that window alone.
"""

from __future__ import annotations

import numpy as np

from hft.system.kernels import kernel


@kernel
def rolling_slope(y: np.ndarray, x: np.ndarray, window: int) -> np.ndarray:
    """Least-squares slope of y on x, with an intercept, over the last `window` pairs.

    nan where the window is not full or holds a nan, and where x does not vary beyond rounding.
    """
    slope = np.full(len(y), np.nan)
    for end in range(window, len(y) + 1):
        mean_x, mean_y = np.mean(x[end - window : end]), np.mean(y[end - window : end])
        # No test for nan: in y it passes through sxy to the slope, in x it makes sxx nan, which
        # compares false below.
        sxx = sxy = scale = 0.0
        for i in range(end - window, end):
            sxx += (x[i] - mean_x) ** 2
            sxy += (x[i] - mean_x) * (y[i] - mean_y)
            scale += x[i] ** 2
        # Rounding leaves a relative 1e-16 per value, so 1e-32 in squares: equal values stay below.
        if sxx > 1e-20 * scale:
            slope[end - 1] = sxy / sxx
    return slope


@kernel
def rolling_lag_covariance(x: np.ndarray, window: int) -> np.ndarray:
    """Covariance (ddof 1) of the window - 1 pairs of neighbours among the last `window` values; nan
    where the window is not full or holds a nan.
    """
    covariance = np.full(len(x), np.nan)
    n = window - 1
    for end in range(window, len(x) + 1):
        late, early = x[end - n : end], x[end - window : end - 1]
        # Each side less its own mean, as the definition of a covariance has it; with one mean for
        # both it would be an autocovariance.
        mean_late, mean_early = np.mean(late), np.mean(early)
        total = 0.0
        for i in range(n):
            total += (late[i] - mean_late) * (early[i] - mean_early)
        covariance[end - 1] = total / (n - 1)
    return covariance
