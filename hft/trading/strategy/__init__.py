"""Calibrated probabilities in, the side to take at each bar out: +1 buy, -1 sell, 0 stay out.

A strategy is fitted on `tune` through the execution it will meet
(`hft.trading.execution.fit_strategy`). What it learnt is a JSON-ready dict, stored with the run and
handed back to `sides`. To add one: one module here with a StrategySpec subclass,
`conf/strategy/<kind>.yaml`, one test. The conformance suite covers it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field

from hft.schema import BUY, SELL
from hft.spec import Kind, UserError

# sides_T -> net bps of each trade that they lead to, at the strategy's schedule
NetOf = Callable[[np.ndarray], np.ndarray]


class StrategyError(UserError):
    """A stored run whose account of what its strategy learnt cannot be used."""


class StrategySpec(Kind):
    schedule: str = Field(
        min_length=1, description="name of the fee schedule, among `fees`, that the fit pays"
    )

    def fit(self, p_T3: np.ndarray, *, net_of: NetOf) -> dict[str, Any]:
        """What `sides` needs besides the spec. Bars outside `tune` are NaN in `p_T3`.

        Always has `reason`, one line on what was found, and `trades`: False where the model does
        not trade.
        """
        raise NotImplementedError

    def sides(self, p_T3: np.ndarray, fitted: dict[str, Any]) -> np.ndarray:
        """int8[T]; 0 where a probability is NaN."""
        raise NotImplementedError


def make_sides(spec: StrategySpec, p_T3: np.ndarray, fitted: dict[str, Any]) -> np.ndarray:
    """The side at each bar, checked: int8 in {-1, 0, +1}, 0 without probabilities."""
    sides = spec.sides(p_T3, fitted)
    # A kind that breaks this is our mistake and no user's, hence no message.
    assert sides.dtype == np.int8
    assert sides.shape == (len(p_T3),)
    assert np.isin(sides, (-1, 0, 1)).all()
    assert not sides[np.isnan(p_T3).any(axis=1)].any()
    return sides


def leaning(p_T3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(side, its probability) of each bar: the likelier of buy and sell, 0 at a tie and where a
    probability is NaN.
    """
    buy, sell = p_T3[:, BUY], p_T3[:, SELL]
    known = ~np.isnan(p_T3).any(axis=1)
    side = np.where(known, np.sign(np.nan_to_num(buy - sell)), 0).astype(np.int8)
    return side, np.maximum(buy, sell)
