"""Ticks and bars in, LABELS out: the class of each bar's decision, when it is known (t_end), its return, its weight.

A decision falls at bars.ts, its entry `latency_ms` later, its end within `horizon` bars. To add a kind: one module here
with a LabelSpec subclass, `conf/labels/<kind>.yaml`, one test. The conformance suite covers it at once.
"""

from __future__ import annotations

import polars as pl
from pydantic import Field

from hft.data import Ticks
from hft.labels._barriers import Exits
from hft.labels._random_walk import walk_like
from hft.schema import CLASS_NAMES, LABELS, check
from hft.spec import Kind

__all__ = ["Exits", "LabelSpec", "build_labels", "class_shares", "random_walk_shares"]


class LabelSpec(Kind):
    horizon: int = Field(ge=1, le=100_000, description="bars after which a trade expires")
    latency_ms: float = Field(ge=0, le=60_000, description="from decision (bar close) to market, ms")

    def exits(self, bars: pl.DataFrame) -> Exits:
        """How a trade decided at each bar ends; uses nothing later than that bar."""
        raise NotImplementedError

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        """LABELS, one row per bar; y, t_end, ret_bps and weight null together where the class is unknowable.

        The last `horizon` bars of a segment have no label, touched or not; neither has a decision that no print follows
        between its entry and its expiry.
        """
        raise NotImplementedError


def build_labels(ticks: Ticks, bars: pl.DataFrame, spec: LabelSpec) -> pl.DataFrame:
    return check(spec.build(ticks, bars), LABELS, where=f"labels ({spec.kind})")


def class_shares(labels: pl.DataFrame) -> dict[str, float]:
    """Shares of hold, buy and sell among the rows that have a label; all nan without any."""
    y = labels["y"].drop_nulls()
    return {name: (y == code).sum() / len(y) if len(y) else float("nan") for code, name in enumerate(CLASS_NAMES)}


def random_walk_shares(bars: pl.DataFrame, spec: LabelSpec, *, seed: int) -> dict[str, float]:
    """Class shares of `spec` on a driftless walk with the trades per bar, pace and volatility of `bars`.

    `bars` may be any selection of rows, such as the training rows. Labels that merely restate these shares have found
    nothing: they are what the barriers' geometry gives by itself.
    """
    return class_shares(build_labels(*walk_like(bars, horizon=spec.horizon, seed=seed), spec))
