"""Fee schedules: a ledger in, what each position cost and what it left out. Fills do not depend on
fees.

To add a schedule: a line `name: {maker_bps, taker_bps}` in conf/fees/<ladder>.yaml; a new ladder
joins all.yaml. Light on purpose: the config imports it, so polars is named for types only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from hft.spec import Spec

if TYPE_CHECKING:
    import polars as pl


class FeeSchedule(Spec):
    maker_bps: float = Field(
        ge=-10, le=100, description="fee of a fill that rested in the book, bps; negative: a rebate"
    )
    taker_bps: float = Field(ge=0, le=100, description="fee of a fill that took from the book, bps")

    def cost_bps(self, ledger: pl.DataFrame) -> np.ndarray:
        """Fees of both legs of each position, bps of its entry notional.

        The exit leg is charged on the entry notional too. Its own notional differs by the return,
        which moves a 5 bps fee by 0.005 bps for a return of 10 bps; charged on the entry's,
        net = gross - 2 x break-even holds exactly.
        """
        entered = ledger["maker_entry"].to_numpy().astype(float)
        maker_legs = entered + ledger["maker_exit"].to_numpy()
        return self.maker_bps * maker_legs + self.taker_bps * (2 - maker_legs)

    def net_bps(self, ledger: pl.DataFrame) -> np.ndarray:
        """Return of each position after fees, bps of its entry notional, in the ledger's order."""
        return ledger["gross_bps"].to_numpy() - self.cost_bps(ledger)

    def one_way_bps(self, ledger: pl.DataFrame) -> float:
        """Mean fee of a leg, for these positions' own mix of maker and taker legs; the taker's
        where there are no positions.
        """
        return float(self.cost_bps(ledger).mean() / 2) if len(ledger) else self.taker_bps


def headline(taker_bps: Mapping[str, float]) -> list[str]:
    """The dearest and the cheapest tier of each ladder, in the order given: names up to their last
    `_` are one ladder.
    """
    ladders: dict[str, list[str]] = {}
    # sorted is stable: among tiers of one fee, as spot's VIP0 and VIP1, the first in order stands
    # for the dearest.
    for name in sorted(taker_bps, key=lambda name: -taker_bps[name]):
        ladders.setdefault(name.rpartition("_")[0], []).append(name)
    ends = {name for tiers in ladders.values() for name in (tiers[0], tiers[-1])}
    return [name for name in taker_bps if name in ends]


def reported(fees: Mapping[str, FeeSchedule], *, own: str) -> list[str]:
    """The schedules that reports show as numbers: the strategy's own first, then the headline."""
    ends = headline({name: schedule.taker_bps for name, schedule in fees.items()})
    # The strategy's own may be an end of its ladder, and is shown once.
    return list(dict.fromkeys([own, *ends]))
