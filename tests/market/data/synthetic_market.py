"""For tests of the synthetic market: small variants of the shipped one, and a look-up of what was
known when.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from hft.market.data.synthetic import Synthetic
from hft.market.ticks import Ticks
from hft.spec import parse

ROOT = Path(__file__).parents[3]
IMPACT = {"impact": True, "volatility_bps_per_sqrt_s": 0.0, "extra_spread_ticks": 0.0}


def spec_of(**changes) -> Synthetic:
    """Ten minutes of the shipped market, with changes."""
    plain = yaml.safe_load((ROOT / "conf/data/synthetic.yaml").read_text()) | {
        "end": "2024-01-01T00:10"
    }
    return parse(Synthetic, plain | changes)


def digest(ticks: Ticks) -> str:
    columns = [column.to_numpy().tobytes() for stream in ticks.streams() for column in stream]
    return hashlib.sha256(b"".join(columns) + ticks.gaps.tobytes()).hexdigest()


def as_of(
    frame: pl.DataFrame, value: pl.Expr, when: np.ndarray, clock: str = "ts_recv"
) -> np.ndarray:
    """`value` of the last row at or before each time."""
    return (
        frame.select(value)
        .to_series()
        .to_numpy()[np.searchsorted(frame[clock].to_numpy(), when, "right") - 1]
    )


MID = (pl.col("bid") + pl.col("ask")) / 2
QUEUE_IMBALANCE = (pl.col("bid_qty") - pl.col("ask_qty")) / (pl.col("bid_qty") + pl.col("ask_qty"))
SPREAD = pl.col("ask") - pl.col("bid")
