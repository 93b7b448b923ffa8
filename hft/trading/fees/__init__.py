"""Fee schedules: a ledger in, what each position cost and what it left out. Fills do not depend on
fees.

To add a schedule: a line `name: {maker_bps, taker_bps}` in conf/fees/<ladder>.yaml; a new ladder
joins all.yaml. Light on purpose: the config imports it, so polars is named for types only.
"""

from __future__ import annotations

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

        The exit leg is charged on the entry notional too; its own differs by the return, which
        moves a 5 bps fee by 0.005 bps for a return of 10 bps, and this way net = gross - 2 x
        break-even holds exactly.
        """
        maker_legs = (
            ledger["maker_entry"].to_numpy().astype(float) + ledger["maker_exit"].to_numpy()
        )
        return self.maker_bps * maker_legs + self.taker_bps * (2 - maker_legs)

    def net_bps(self, ledger: pl.DataFrame) -> np.ndarray:
        """Return of each position after fees, bps of its entry notional, in the ledger's order."""
        return ledger["gross_bps"].to_numpy() - self.cost_bps(ledger)
