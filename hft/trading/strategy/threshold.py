"""Buy where p_buy reaches theta and exceeds p_sell, sell where p_sell does; theta is the threshold
that earns the most on `tune` (docs/definitions.md 5.17).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from hft.trading.strategy import NetOf, StrategyError, StrategySpec, leaning

# Simulations per fit: the earnings curve is far noisier than a finer grid would resolve.
GRID_SIZE = 40


class Threshold(StrategySpec):
    kind: Literal["threshold"]
    min_trades: int = Field(
        ge=1, description="trades on tune below which a theta is not considered"
    )

    def fit(self, p_T3: np.ndarray, *, net_of: NetOf) -> dict[str, Any]:
        """The theta with the highest total net bps, even where that is a loss: not trading would
        hide the loss. Of equal totals the highest theta wins.
        """
        best: dict[str, Any] | None = None
        most = 0
        for theta in _grid(p_T3, self.min_trades):
            net = net_of(self.sides(p_T3, {"theta": theta}))
            most = max(most, len(net))
            total = float(net.sum())
            # Strictly more, along a grid that falls: of equal totals the highest theta stays.
            if len(net) >= self.min_trades and (best is None or total > best["tune_net_bps"]):
                best = {"theta": theta, "tune_trades": len(net), "tune_net_bps": total}
        if best is None:
            reason = (
                f"does not trade: no threshold gives {self.min_trades} trades on tune, "
                f"the most is {most}"
            )
            return {
                "trades": False,
                "theta": None,
                "tune_trades": most,
                "tune_net_bps": 0.0,
                "reason": reason,
            }
        verdict = "earns" if best["tune_net_bps"] > 0 else "loses least:"
        reason = (
            f"theta {best['theta']:.4f} {verdict} {best['tune_net_bps']:.1f} bps net over "
            f"{best['tune_trades']} trades on tune at {self.schedule}"
        )
        return {"trades": True, **best, "reason": reason}

    def sides(self, p_T3: np.ndarray, fitted: dict[str, Any]) -> np.ndarray:
        theta = fitted.get("theta", "missing")
        if theta is None:
            return np.zeros(len(p_T3), np.int8)
        # The file may be a stranger's.
        if not isinstance(theta, int | float) or not 0 <= theta <= 1:
            raise StrategyError(
                f"strategy.json: theta must be null or in [0, 1], got {theta!r}; "
                "train the run again"
            )
        side, confidence = leaning(p_T3)
        return np.where(confidence >= theta, side, 0).astype(np.int8)


def _grid(p_T3: np.ndarray, min_trades: int) -> list[float]:
    """Thetas from high to low that let through shares of the leaning bars, geometric from
    `min_trades` bars to all.
    """
    side, confidence = leaning(p_T3)
    ranked = np.sort(confidence[side != 0])[::-1]
    # A trade needs a bar, so no theta can lead to `min_trades` of them.
    if len(ranked) < min_trades:
        return []
    counts = np.unique(np.geomspace(min_trades, len(ranked), GRID_SIZE).round().astype(int))
    # Bars of equal confidence would have the same theta simulated twice.
    return list(dict.fromkeys(ranked[counts - 1].tolist()))
