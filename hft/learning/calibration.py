"""Temperature and class bias that make logits honest probabilities (Guo et al. 2017; the bias is
added here, since focal loss distorts).

p = softmax(a z + b), a = 1 / temperature. The fit minimises, over a and b, the mean log loss plus
((a - 1)^2 + |b|^2) / (2 N). That is a unit normal prior around the identity, worth one row of
evidence: tiny or one-class sets end finite, and large ones do not notice. The sum is strictly
convex, so Newton's method finds its one minimum, and its log loss is never above the identity's.
a stays within [.01, 100]: predictions without skill, or with skill of the wrong sign, end as the
class frequencies. Fewer than 30 rows leave the identity.
"""

from __future__ import annotations

import numpy as np

MIN_ROWS = 30
# Bounds of a, both positive: the classifier stores the logarithm of the temperature.
SMALLEST, LARGEST = 0.01, 100.0


def fit_calibration(logits_NC: np.ndarray, y_N: np.ndarray) -> tuple[float, np.ndarray]:
    """(temperature, bias_C); logits finite, y in 0..C-1."""
    z_NC = np.asarray(logits_NC, np.float64)
    n_classes = z_NC.shape[1]
    identity = np.r_[1.0, np.zeros(n_classes)]
    if len(z_NC) < MIN_ROWS:
        return 1.0, identity[1:]
    found = _minimise(identity, z_NC, y_N, free=np.ones(n_classes + 1, bool))
    if not SMALLEST <= found[0] <= LARGEST:
        # The objective is convex, so its minimum within the bounds has a on the bound that `found`
        # passed, and the biases alone are left to fit.
        bound = np.r_[np.clip(found[0], SMALLEST, LARGEST), np.zeros(n_classes)]
        found = _minimise(bound, z_NC, y_N, free=np.arange(n_classes + 1) > 0)
    # The penalty is 0 at the identity, so `found` is worse only by rounding, by a search that
    # ended early, or as nan, which `not <` catches too.
    if not _log_loss(found, z_NC, y_N) < _log_loss(identity, z_NC, y_N):
        found = identity
    return 1 / found[0], found[1:]


def _minimise(
    start: np.ndarray, z_NC: np.ndarray, y_N: np.ndarray, *, free: np.ndarray
) -> np.ndarray:
    """Newton's method with step halving over the `free` entries of (a, b_C)."""
    v = start.copy()
    value, slope, curvature = _penalised(v, z_NC, y_N)
    for _ in range(100):
        step = np.zeros_like(v)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], slope[free])
        decrease = slope @ step
        # Half of `decrease` is what the quadratic model expects of the step, in nats.
        if decrease < 1e-14:
            break
        length = 1.0
        # Armijo's condition. A full Newton step overshoots where the probabilities saturate.
        while (tried := _penalised(v - length * step, z_NC, y_N))[
            0
        ] > value - 1e-4 * length * decrease:
            length /= 2
            if length < 1e-10:  # float64 resolves no further descent
                return v
        v -= length * step
        value, slope, curvature = tried
    return v


def _penalised(
    v: np.ndarray, z_NC: np.ndarray, y_N: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The objective with its gradient and Hessian in (a, b_C)."""
    n = len(z_NC)
    log_p_NC = _log_softmax(v[0] * z_NC + v[1:])
    p_NC = np.exp(log_p_NC)
    off = v - np.r_[1.0, np.zeros(len(v) - 1)]
    value = -log_p_NC[np.arange(n), y_N].mean() + off @ off / (2 * n)
    mean_z_N = (p_NC * z_NC).sum(1)
    count_C = np.bincount(y_N, minlength=len(v) - 1)
    slope = np.r_[(mean_z_N - z_NC[np.arange(n), y_N]).mean(), p_NC.mean(0) - count_C / n] + off / n
    # The Hessian in (a, b_C) is the covariance, under a row's p, of its logit and the indicators of
    # its class, averaged over the rows.
    centred_NC = z_NC - mean_z_N[:, None]
    mixed_C = (p_NC * centred_NC).mean(0)
    curvature = np.empty((len(v), len(v)))
    curvature[0, 0] = (p_NC * centred_NC**2).sum(1).mean()
    curvature[0, 1:] = curvature[1:, 0] = mixed_C
    curvature[1:, 1:] = np.diag(p_NC.mean(0)) - p_NC.T @ p_NC / n
    # The prior's share also makes the matrix invertible: softmax does not change when all biases
    # shift together, so the log loss is flat along that direction.
    return value, slope, curvature + np.eye(len(v)) / n


def _log_loss(v: np.ndarray, z_NC: np.ndarray, y_N: np.ndarray) -> float:
    return -_log_softmax(v[0] * z_NC + v[1:])[np.arange(len(z_NC)), y_N].mean()


def _log_softmax(z_NC: np.ndarray) -> np.ndarray:
    # exp overflows float64 beyond 709.
    z_NC = z_NC - z_NC.max(1, keepdims=True)
    return z_NC - np.log(np.exp(z_NC).sum(1, keepdims=True))
