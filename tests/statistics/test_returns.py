"""Trade statistics against closed forms and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.statistics.bootstrap import mean_interval
from hft.statistics.returns import break_even, max_drawdown


def test_break_even_is_half_the_mean_gross():
    gross = np.random.default_rng(0).normal(3, 10, 500)
    even, mean = break_even(gross, seed=0), mean_interval(gross, seed=0)
    assert even.mean == pytest.approx(gross.sum() / (2 * 500))
    assert (even.low, even.high) == pytest.approx((mean.low / 2, mean.high / 2))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), max_size=40))
def test_drawdown_against_all_pairs(x):
    equity = [0.0]
    for value in x:
        equity.append(equity[-1] + value)
    worst = max(equity[i] - equity[j] for i in range(len(equity)) for j in range(i, len(equity)))
    assert max_drawdown(np.array(x)) == pytest.approx(worst, abs=1e-9)
