"""Every strategy, every shipped YAML: JSON-ready fits, int8 sides, blank where unknown."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from hft.spec import PACKAGE, Room, Spec, parse
from hft.trading.strategy import StrategySpec, make_sides

ROOM = Room("hft.trading.strategy")
CONF = PACKAGE.parent / "conf" / "strategy"


class Config(Spec):
    strategy: Annotated[StrategySpec, Room("hft.trading.strategy")]


def shipped(kind: str) -> StrategySpec:
    node = OmegaConf.create(
        {"min_trades": 30, "strategy": yaml.safe_load((CONF / f"{kind}.yaml").read_text())}
    )
    return parse(
        Config, {"strategy": OmegaConf.to_container(node, resolve=True)["strategy"]}
    ).strategy


def forecasts(n: int = 400, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities with blanks, the return of a buy at each bar), the return known a little by
    the probabilities.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3))
    p_T3 = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p_T3[rng.random(n) < 0.1] = np.nan
    return p_T3, rng.normal(size=n) * 10 + 20 * np.nan_to_num(p_T3[:, 1] - p_T3[:, 2])


def earn(returns: np.ndarray, cost: float = 5.0):
    return lambda sides: (sides * returns - cost)[sides != 0]


@pytest.fixture(params=ROOM.names())
def strategy(request) -> StrategySpec:
    return shipped(request.param)


def test_fit_is_json_and_says_what_it_found(strategy):
    p_T3, returns = forecasts()
    fitted = strategy.fit(p_T3, net_of=earn(returns))
    assert json.loads(json.dumps(fitted, allow_nan=False)) == fitted
    assert fitted["trades"] is True
    assert fitted["reason"]
    assert strategy.fit(p_T3, net_of=earn(returns)) == fitted


def test_sides_are_checked_and_blank_where_unknown(strategy):
    p_T3, returns = forecasts()
    sides = make_sides(strategy, p_T3, strategy.fit(p_T3, net_of=earn(returns)))
    assert sides.any()
    assert not sides[np.isnan(p_T3).any(axis=1)].any()


def test_nothing_to_fit_on_means_no_trades_and_a_reason(strategy):
    p_T3, returns = forecasts(10)
    for blank in (p_T3, np.full((50, 3), np.nan), np.empty((0, 3))):
        fitted = strategy.fit(blank, net_of=earn(np.resize(returns, len(blank))))
        assert fitted["trades"] is False
        assert "does not trade" in fitted["reason"]
        assert not make_sides(strategy, blank, fitted).any()


def test_a_bar_is_judged_by_its_own_probabilities(strategy):
    p_T3, returns = forecasts()
    fitted = strategy.fit(p_T3, net_of=earn(returns))
    assert (
        make_sides(strategy, p_T3, fitted)[:100] == make_sides(strategy, p_T3[:100], fitted)
    ).all()
