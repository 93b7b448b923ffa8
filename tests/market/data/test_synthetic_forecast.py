"""What the synthetic market lets anyone forecast: nothing at alpha = 0, the latent drift at alpha >
0.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_MS, NS_PER_S, to_ns
from hft.market.data import load_ticks
from hft.market.data._reference_walk import STEP_MS
from hft.market.data.synthetic import latent_drift
from hft.market.ticks import Ticks
from tests.market.data.synthetic_market import IMPACT, MID, QUEUE_IMBALANCE, SPREAD, as_of, spec_of

FLOW_CHANGES = {
    "flow_lean": 0.0,
    "sign_tail": 2.5,
    "trades_per_s": 5.0,
    "trade_qty": 0.1,
    "limits_per_s": 90.0,
    "limit_qty": 0.05,
    "limit_life_s": 5.0,
    "extra_spread_ticks": 2.0,
    "levels": 6,
}


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("change", [*FLOW_CHANGES, "all"])
def test_flow_leaves_the_price_path_bit_identical(alpha, change):
    changes = FLOW_CHANGES if change == "all" else {change: FLOW_CHANGES[change]}
    minutes = {"end": "2024-01-01T00:02", "alpha": alpha}
    grid = np.arange(to_ns("2024-01-01"), to_ns("2024-01-01T00:01:59"), 5 * NS_PER_MS)
    paths = [
        as_of(load_ticks(s).quotes, ((pl.col("bid") + pl.col("ask")) * 10).round(), grid, "ts_exch")
        for s in (spec_of(**minutes), spec_of(**minutes, **changes))
    ]
    assert np.array_equal(*paths)
    assert len(np.unique(paths[0])) > 100


def test_alpha_moves_the_price_and_nothing_else():
    still, drifting = load_ticks(spec_of()), load_ticks(spec_of(alpha=1.0))
    columns = ["ts_recv", "id", "qty", "side"]
    assert drifting.trades.select(columns).equals(still.trades.select(columns))
    assert not drifting.trades["price"].equals(still.trades["price"])


@pytest.fixture(scope="module")
def hour() -> Ticks:
    return load_ticks(spec_of(end="2024-01-01T01:00"))


def moments_before_and_after(
    ticks: Ticks, drift: pl.DataFrame, horizon_s: float
) -> tuple[dict, np.ndarray]:
    """What is known at times `horizon_s` apart, and the log return (bps) of the mid over the next
    `horizon_s`.
    """
    h, back = int(horizon_s * NS_PER_S), 10 * NS_PER_S
    grid = np.arange(ticks.start + max(h, 3 * back), ticks.end - h, h)
    log_mid = {k: 1e4 * np.log(as_of(ticks.quotes, MID, grid + k * h)) for k in (-1, 0, 1)}
    flow = ticks.trades.select(
        "ts_recv", n=pl.int_range(1, pl.len() + 1), net=pl.col("side").cast(pl.Int64).cum_sum()
    )
    known = {
        "signs": as_of(flow, pl.col("net"), grid) - as_of(flow, pl.col("net"), grid - back),
        "prints": as_of(flow, pl.col("n"), grid) - as_of(flow, pl.col("n"), grid - back),
        "queues": as_of(ticks.quotes, QUEUE_IMBALANCE, grid),
        "spread": as_of(ticks.quotes, SPREAD, grid),
        "return": log_mid[0] - log_mid[-1],
        "m": as_of(drift, pl.col("m"), grid),
    }
    return known, log_mid[1] - log_mid[0]


def z_score(x: np.ndarray, y: np.ndarray) -> float:
    return np.corrcoef(x, y)[0, 1] * math.sqrt(len(x))


@pytest.mark.parametrize("horizon_s", [0.25, 1.0, 10.0, 60.0])
def test_without_alpha_nothing_is_forecast(horizon_s):
    """Neither the sign nor the size of the next return, in six hours of six seeds: 4 sd is 1 in
    16,000.
    """
    returns_z, sizes_z = {}, {}
    for seed in range(6):
        spec = spec_of(seed=seed, end="2024-01-01T01:00")
        known, after = moments_before_and_after(load_ticks(spec), latent_drift(spec), horizon_s)
        for name, x in known.items():
            returns_z.setdefault(name, []).append(z_score(x, after))
            sizes_z.setdefault(name, []).append(z_score(np.abs(x), np.abs(after)))
    for scores in (*returns_z.values(), *sizes_z.values()):
        assert abs(sum(scores) / math.sqrt(len(scores))) < 4, (returns_z, sizes_z)


def test_without_alpha_the_oracle_knows_nothing_but_flow_still_leans(hour):
    drift = latent_drift(spec_of(end="2024-01-01T01:00"))
    assert (drift["drift_bps_per_s"] == 0).all()
    m = as_of(drift, pl.col("m"), hour.trades["ts_recv"].to_numpy())
    assert np.mean(m * hour.trades["side"].to_numpy()) / np.mean(m * m) == pytest.approx(
        0.3, abs=0.05
    )
    m = as_of(drift, pl.col("m"), hour.quotes["ts_recv"].to_numpy())
    assert np.corrcoef(m, hour.quotes.select(QUEUE_IMBALANCE).to_series())[0, 1] > 0.3


@pytest.mark.parametrize("horizon_s", [5.0, 30.0])
def test_with_alpha_the_latent_drift_is_the_forecast(horizon_s):
    alpha, drift_s, volatility = 0.7, 30.0, 0.9
    known = {"forecast": [], "signs": [], "queues": []}
    after = []
    for seed in range(3):
        spec = spec_of(seed=seed, alpha=alpha, drift_s=drift_s, end="2024-01-01T02:00")
        drift = latent_drift(spec)
        assert drift["drift_bps_per_s"].to_numpy() == pytest.approx(
            alpha * volatility / math.sqrt(drift_s) * drift["m"].to_numpy()
        )
        now, then = moments_before_and_after(load_ticks(spec), drift, horizon_s)
        reach = drift_s * (1 - math.exp(-horizon_s / drift_s))
        known["forecast"].append(now["m"] * alpha * volatility / math.sqrt(drift_s) * reach)
        known["signs"].append(now["signs"])
        known["queues"].append(now["queues"])
        after.append(then)
    forecast, signs, queues, after = (np.concatenate(v) for v in (*known.values(), after))
    slope = np.sum(forecast * after) / np.sum(forecast**2)
    error = after.std() / math.sqrt(np.sum(forecast**2))
    assert slope == pytest.approx(1, abs=4 * error)
    # Var = sigma^2 (h + 2 alpha^2 (h - reach)), Cov with m = alpha sigma reach / sqrt(drift_s)
    theory = alpha * reach / math.sqrt(drift_s * (horizon_s + 2 * alpha**2 * (horizon_s - reach)))
    best = np.corrcoef(forecast, after)[0, 1]
    assert best == pytest.approx(theory, abs=4 / math.sqrt(len(after)))
    for flow in (signs, queues):
        assert z_score(flow, after) > 5
        assert np.corrcoef(flow, after)[0, 1] < best


def test_latent_is_a_stationary_process_of_unit_variance():
    drift = latent_drift(spec_of(drift_s=5.0, end="2024-01-01T04:00"))
    m = drift["m"].to_numpy()
    assert np.all(np.diff(drift["ts_recv"]) == STEP_MS * NS_PER_MS)
    assert drift["ts_recv"][0] == to_ns("2024-01-01")
    assert m.mean() == pytest.approx(0, abs=4 * math.sqrt(2 * 5 / 14_400))
    assert m.var() == pytest.approx(1, abs=4 * math.sqrt(2 * 5 / 14_400))
    assert np.mean(m[50:] * m[:-50]) == pytest.approx(math.exp(-1), abs=0.15)


def test_with_impact_signs_forecast_the_price():
    """Why it is no null control."""
    spec = spec_of(**IMPACT, limit_life_s=1.0, end="2024-01-01T01:00")
    drift = latent_drift(spec)
    known, after = moments_before_and_after(load_ticks(spec), drift, 10.0)
    assert z_score(known["signs"], after) > 5
    assert (drift["drift_bps_per_s"] == 0).all()
