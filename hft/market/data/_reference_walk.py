"""The price of the synthetic market: a latent drift, and a compound Poisson walk on the tick grid.

In: a random stream for each, volatility, alpha. Out: the drift on a grid of STEP_MS, and the moves.
Nothing here knows orders or queues, so that at alpha = 0 they cannot forecast the price. A rounded
Brownian path was rejected: rounding makes the mid bounce, and a bounce is predictable.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hft.system.kernels import kernel

STEP_MS = 100
MOVES_PER_S = 5.0
MAX_LATENT = 5.0  # standard deviations up to which a move's direction can follow the drift exactly


class Moves(NamedTuple):
    """How the reference moves on one day: at a constant rate, so volatility is constant."""

    per_ms: float
    size_scale: float  # 1 / log(1 - p) of the geometric size
    bias: float  # P(up) = (1 + bias * m) / 2


def plan_moves(volatility_ticks_per_sqrt_s: float, *, alpha: float, drift_s: float) -> Moves:
    """Geometric moves of J >= 1 ticks with rate * E[J^2] = volatility^2. Only their signs carry the
    drift.
    """
    if volatility_ticks_per_sqrt_s == 0:
        return Moves(0.0, 0.0, 0.0)
    per_s = min(MOVES_PER_S, volatility_ticks_per_sqrt_s**2)  # E[J^2] is at least 1
    square = volatility_ticks_per_sqrt_s**2 / per_s
    p = (math.sqrt(1 + 8 * square) - 1) / (2 * square)  # (2 - p) / p^2 = E[J^2]
    drift_ticks_per_s = alpha * volatility_ticks_per_sqrt_s / math.sqrt(drift_s)  # at m = 1
    # E[J] = 1 / p.
    return Moves(per_s / 1000, geometric_scale(1 / p - 1), drift_ticks_per_s * p / per_s)


def geometric_scale(mean: float) -> float:
    """The scale with which draw_geometric draws numbers of that mean."""
    return 0.0 if mean < 1e-12 else -1 / math.log1p(1 / mean)


def draw_latent(
    rng: np.random.Generator, m: float, *, duration_ms: int, drift_s: float
) -> tuple[np.ndarray, float]:
    """m at the start of each step, where it stays until the next one, and m at the end: a
    stationary Ornstein-Uhlenbeck process of unit variance.
    """
    normals = rng.standard_normal(-(-duration_ms // STEP_MS))
    return _mean_revert(normals, m, math.exp(-STEP_MS / 1000 / drift_s))


@kernel
def _mean_revert(normals: np.ndarray, m: float, decay: float) -> tuple[np.ndarray, float]:
    latent = np.empty_like(normals)
    noise = math.sqrt(1 - decay * decay)
    for i in range(len(normals)):
        latent[i] = m
        m = decay * m + noise * normals[i]
    return latent, m


@kernel
def draw_moves(
    rng: np.random.Generator, moves: Moves, latent: np.ndarray, duration_ms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Times (ms from the start) and sizes (whole ticks, signed). The random draws are the same
    whatever the drift.
    """
    times, ticks = [0.0], [0]
    t = draw_exponential(rng) / moves.per_ms if moves.per_ms > 0 else float(duration_ms)
    while t < duration_ms:
        lean = min(1.0, max(-1.0, moves.bias * latent[int(t) // STEP_MS]))
        sign = 1 if 2 * rng.random() < 1 + lean else -1
        times.append(t)
        ticks.append(sign * (1 + draw_geometric(rng, moves.size_scale)))
        t += draw_exponential(rng) / moves.per_ms
    return np.array(times)[1:], np.array(ticks)[1:]


@kernel
def draw_exponential(rng: np.random.Generator) -> float:
    # By inversion: numba compiles one kind of draw instead of three.
    return -math.log(1 - rng.random())


@kernel
def draw_geometric(rng: np.random.Generator, scale: float) -> int:
    """0, 1, 2, ... by inversion. `scale` = 1 / log(q), where q is the chance of one more; scale 0
    draws 0.
    """
    return int(math.log(1 - rng.random()) * scale)
