"""threshold: sides by hand, and a search over every possible theta as the twin of the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.trading.strategy import StrategyError
from hft.trading.strategy.threshold import Threshold
from tests.trading.strategy.test_conformance import earn, forecasts


def threshold(min_trades: int = 30) -> Threshold:
    return Threshold(kind="threshold", schedule="binance_usdm_vip0", min_trades=min_trades)


def test_sides_by_hand():
    p_T3 = np.array(
        [
            [0.4, 0.5, 0.1],  # reaches theta: buy
            [0.4, 0.1, 0.5],  # sell
            [0.52, 0.48, 0.0],  # below
            [0.0, 0.5, 0.5],  # a tie is no opinion
            [0.9, 0.1, 0.0],
            [np.nan, 0.9, 0.1],
        ]
    )
    assert threshold().sides(p_T3, {"theta": 0.5}).tolist() == [1, -1, 0, 0, 0, 0]


def test_fit_finds_the_level_above_which_it_pays():
    """Forecasts above 0.7 are right and earn 10 less 5, those below lose: theta lands between."""
    rng = np.random.default_rng(0)
    p_buy = rng.uniform(0.34, 1.0, 2000)
    p_T3 = np.stack([(1 - p_buy) / 2, p_buy, (1 - p_buy) / 2], axis=1)
    fitted = threshold().fit(p_T3, net_of=earn(np.where(p_buy > 0.7, 10.0, -10.0)))
    assert fitted["theta"] == pytest.approx(0.7, abs=0.05)
    assert fitted["tune_net_bps"] > 0.9 * 5 * (p_buy > 0.7).sum()
    assert "earns" in fitted["reason"]


def test_too_few_trades_and_no_trading():
    """A market that fills only every twentieth order: 400 bars give 20 trades at most."""
    p_T3, returns = forecasts(400)
    fitted = threshold().fit(p_T3, net_of=lambda sides: earn(returns)(sides)[::20])
    assert fitted["theta"] is None
    assert fitted["tune_trades"] < 30
    assert "30 trades" in fitted["reason"]
    assert not threshold().sides(p_T3, fitted).any()


def test_a_losing_model_trades_and_says_that_it_loses():
    p_T3, returns = forecasts()
    fitted = threshold().fit(p_T3, net_of=earn(0 * returns, cost=10.0))
    assert fitted["trades"]
    assert (
        fitted["tune_trades"] == 30
    )  # every trade costs 10: the highest theta that the minimum allows
    assert fitted["tune_net_bps"] == pytest.approx(-300)
    assert "loses least" in fitted["reason"]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), min_trades=st.integers(1, 5))
def test_twin(seed, n, min_trades):
    """Up to 12 bars the geometric grid steps by less than one bar, so it must find the best theta
    of all.
    """
    p_T3, returns = forecasts(n, seed=seed)
    spec = threshold(min_trades)
    fitted = spec.fit(p_T3, net_of=earn(returns))
    best = (None, -np.inf)
    for theta in sorted(
        {float(v) for row in p_T3 for v in row[1:] if not np.isnan(v)}, reverse=True
    ):
        net = [
            (r if row[1] > row[2] else -r) - 5.0
            for row, r in zip(p_T3, returns, strict=True)
            if not np.isnan(row).any() and row[1] != row[2] and max(row[1], row[2]) >= theta
        ]
        if len(net) >= min_trades and sum(net) > best[1] + 1e-9:
            best = (theta, sum(net))
    assert (fitted["theta"] is None) == (best[0] is None)
    if best[0] is not None:
        assert fitted["tune_net_bps"] == pytest.approx(best[1])


@pytest.mark.parametrize("fitted", [{"theta": "high"}, {"theta": 1.5}, {"theta": [0.5]}, {}])
def test_a_foreign_theta_is_one_clear_error(fitted):
    with pytest.raises(StrategyError, match=r"theta must be null or in \[0, 1\], got"):
        threshold().sides(np.full((4, 3), 1 / 3), fitted)
