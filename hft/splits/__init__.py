"""A loaded time range in, Splits out: periods of time with a role each, purged by label ends and embargoed.

Periods come from the range alone, so they are the same for every kind of bar. To add a kind: one module here with a
SplitSpec subclass, `conf/splits/<kind>.yaml`, one test. The conformance suite covers it at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from hft.spec import Kind, UserError

ROLES = ("none", "train", "tune", "select", "test")
MIN_ROWS = 50  # fewer rows fit neither a temperature nor a threshold


class SplitError(UserError):
    """Periods or rows that cannot serve their role."""


@dataclass(frozen=True)
class Split:
    """One fold: role -> [start, end) ns, disjoint, and the number of bars left out after each period."""

    fold: int
    periods: dict[str, tuple[int, int]]
    embargo: int

    def rows(self, role: str, bars: pl.DataFrame) -> np.ndarray:
        """Every bar that closes in the role's period, labelled or not: for predictions and simulation."""
        start, end = self.periods[role]
        ts = bars["ts"].to_numpy()
        return (ts >= start) & (ts < end)

    def role_T(self, bars: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
        """int8 code into ROLES of the rows a fit or a metric may use.

        Such a row closes in its period, has a label that ended before the period did, and lies beyond the `embargo`
        bars that follow the end of any other period.
        """
        t_end = _label_ends(bars, labels)
        kept = (t_end >= 0) & ~self._embargoed(bars)
        out = np.zeros(bars.height, np.int8)
        for role, (_, end) in self.periods.items():
            out[self.rows(role, bars) & kept & (t_end < end)] = ROLES.index(role)
        return out

    def _embargoed(self, bars: pl.DataFrame) -> np.ndarray:
        out = np.zeros(bars.height, bool)
        for _, end in self.periods.values():
            first = np.searchsorted(bars["ts"].to_numpy(), end, side="left")
            out[first : first + self.embargo] = True
        return out


class SplitSpec(Kind):
    embargo: int = Field(ge=0, le=1_000_000, description="bars left out after each period, on top of purging")

    def periods(self, start: int, end: int) -> list[dict[str, tuple[int, int]]]:
        """Per fold: role -> [start, end) ns, inside the given range."""
        raise NotImplementedError


def make_periods(start: int, end: int, spec: SplitSpec) -> list[Split]:
    splits = [Split(fold, periods, spec.embargo) for fold, periods in enumerate(spec.periods(start, end))]
    if any(first >= last for split in splits for first, last in split.periods.values()):
        raise SplitError(
            f"splits ({spec.kind}): the loaded range of {end - start} ns is too short to be split; load more data "
            "(data.start, data.end)"
        )
    return splits


def check_rows(
    split: Split, bars: pl.DataFrame, labels: pl.DataFrame, usable_T: np.ndarray, *, roles: tuple[str, ...]
) -> None:
    """SplitError when a role has under MIN_ROWS rows with a label and `usable_T` (features known over R bars).

    The message counts why bars were lost, for every role that falls short.
    """
    role_T = split.role_T(bars, labels)
    lines = [
        _shortage(split, role, role_T, bars, labels, usable_T)
        for role in roles
        if np.count_nonzero((role_T == ROLES.index(role)) & usable_T) < MIN_ROWS
    ]
    if lines:
        lines.append(
            "too few bars for the labels' horizon or the model's receptive field: load more data (data.start, "
            "data.end), make bars smaller (bars.size), or lower labels.horizon, labels.span, splits.embargo, the "
            "features' windows or the model's receptive field"
        )
        raise SplitError("\n".join(lines))


def _shortage(split: Split, role: str, role_T, bars: pl.DataFrame, labels: pl.DataFrame, usable_T) -> str:
    here = split.rows(role, bars)
    labelled = here & (_label_ends(bars, labels) >= 0)
    kept = role_T == ROLES.index(role)
    return (
        f"splits: {role} has {np.count_nonzero(kept & usable_T)} usable rows, needs at least {MIN_ROWS}; of its "
        f"{np.count_nonzero(here)} bars {np.count_nonzero(here & ~labelled)} have no label, "
        f"{np.count_nonzero(labelled & ~kept)} are purged or embargoed, "
        f"{np.count_nonzero(kept & ~usable_T)} lack known features over the receptive field"
    )


def _label_ends(bars: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
    """t_end per bar, -1 where there is no label."""
    if not bars["bar"].equals(labels["bar"]):
        raise SplitError(
            f"splits: bars ({bars.height} rows) and labels ({labels.height} rows) are not of the same bars"
        )
    return labels.select(pl.when(pl.col("y").is_not_null()).then(pl.col("t_end")).fill_null(-1)).to_series().to_numpy()
