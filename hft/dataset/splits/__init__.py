"""Splits a loaded time range into periods with a role each, purged by label ends and embargoed.

Periods come from the range alone, so that they are the same for every kind of bar. A role may have
several blocks; those that touch count as one run.

Purging is by labels: a row serves its role when its label ended inside its own run of blocks. So no
label reaches a row of another role, on either side (labels never cross a segment, see
hft.dataset.labels). Features look back: after every run `embargo` bars are left out, which must
cover the features' windows. Where training goes on behind test rows (cpcv), `rows.hide_rows` with
`Split.seen` keeps the model's R bars off them.

To add a kind: one module here with a SplitSpec subclass, `conf/splits/<kind>.yaml`, one test. The
conformance suite covers it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from hft.spec import Kind, UserError

# A role's index is its number in role_T; 0 is no role.
ROLES = ("none", "train", "tune", "select", "test", "final")
READ = ("train", "tune", "select")  # what a training may see
MIN_ROWS = 50  # with fewer, neither a temperature nor a threshold can be fitted

Block = tuple[int, int]  # [start, end) ns
Periods = dict[str, tuple[Block, ...]]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class SplitError(UserError):
    """Periods or rows that cannot serve their role."""


@dataclass(frozen=True)
class Split:
    """One fold: role -> its blocks in time order, all disjoint; how many bars are left out after
    each run of blocks; the path to which each test block belongs. Only the fold that scores the
    locked role `final` has it.
    """

    fold: int
    periods: Periods
    embargo: int
    paths: tuple[int, ...] = (0,)

    def hull(self, role: str) -> Block:
        """From the start of the role's first block to the end of its last."""
        return self.periods[role][0][0], self.periods[role][-1][1]

    def rows(self, role: str, bars: pl.DataFrame) -> np.ndarray:
        """bool[T]: bars that close in the role's blocks, labelled or not: for predictions and
        simulation.
        """
        return inside(bars, self.periods[role])

    def role_T(self, bars: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
        """int8[T]: index into ROLES, for rows that a fit or a metric may use; 0 for the others.

        Such a row closes in a block of its role, has a label that ended before that run of blocks
        did, and is none of the `embargo` bars after the end of a run.
        """
        t_end = _label_ends(bars, labels)
        kept = (t_end >= 0) & ~self._embargoed(bars)
        out = np.zeros(bars.height, np.int8)
        for role, blocks in self.periods.items():
            # Blocks that touch are one run: no label that crosses their common edge is lost.
            for run in _runs(blocks):
                # Strictly before: a row of the next role may close on the edge itself.
                out[inside(bars, [run]) & kept & (t_end < run[1])] = ROLES.index(role)
        return out

    def train_reads(self) -> list[Block]:
        """The blocks of time that fitting and validating this fold reads; those that touch are
        joined.
        """
        return _runs(block for role in READ for block in self.periods[role])

    def seen(self, bars: pl.DataFrame) -> np.ndarray:
        """bool[T]: bars that close in `train_reads`."""
        return inside(bars, self.train_reads())

    def _embargoed(self, bars: pl.DataFrame) -> np.ndarray:
        # After every run, also between training and validation: a feature looks back over the edge.
        out, ts = np.zeros(bars.height, bool), bars["ts"].to_numpy()
        for blocks in self.periods.values():
            for _, end in _runs(blocks):
                first = np.searchsorted(ts, end, side="left")
                # Counted in bars, as the windows of features are.
                out[first : first + self.embargo] = True
        return out


class SplitSpec(Kind):
    embargo: int = Field(
        ge=0, le=1_000_000, description="bars left out after each period, on top of purging"
    )
    final: float = Field(
        ge=0,
        lt=1,
        description="fraction of the loaded time, its end, that stays locked until a backtest is "
        "told to open it; 0: none. Every other fraction is of the time before it",
        json_schema_extra={"before": 0.0},
    )

    def periods(self, start: int, end: int) -> list[Periods]:
        """Per fold: role -> blocks, inside the given range."""
        raise NotImplementedError


def make_periods(start: int, end: int, spec: SplitSpec) -> list[Split]:
    """The folds of a loaded range. A block that several folds test lies on another path in each, in
    the order of the folds. SplitError when the range is too short.
    """
    # `final` is cut off first, so that the other periods are those of a range which ends here.
    locked = end - round((end - start) * spec.final)
    tested: Counter[Block] = Counter()
    splits = []
    for fold, periods in enumerate(spec.periods(start, locked)):
        # AFML figure 12.1: the j-th fold that tests a group gives its result to path j.
        splits.append(
            Split(fold, periods, spec.embargo, tuple(tested[block] for block in periods["test"]))
        )
        tested.update(periods["test"])
    if spec.final:
        splits = _with_final(splits, (locked, end))
    if any(
        first >= last
        for split in splits
        for blocks in split.periods.values()
        for first, last in blocks
    ):
        raise SplitError(
            f"splits ({spec.kind}): the loaded range of {end - start} ns is too short to be split; "
            "load more data (data.start, data.end)"
        )
    return splits


def reads_until(splits: list[Split]) -> int:
    """The time (ns) at or after which no fold's training reads anything."""
    return max(split.train_reads()[-1][1] for split in splits)


def open_until(splits: list[Split]) -> int:
    """The start of the locked `final`, or the end of everything where there is none: how far a
    backtest reads unless it is told to open `final`. Labels built on a market cut here hold nothing
    of it.
    """
    return max(split.hull(role)[1] for split in splits for role in split.periods if role != "final")


def check_rows(
    split: Split,
    bars: pl.DataFrame,
    labels: pl.DataFrame,
    usable_T: np.ndarray,
    *,
    roles: tuple[str, ...],
) -> None:
    """SplitError when a role has fewer than MIN_ROWS rows that serve it and are `usable_T`
    (features known over R bars).

    For every role that falls short, the message counts why bars were lost.
    """
    role_T = split.role_T(bars, labels)
    lines = [
        _shortage(split, role, role_T, bars, labels, usable_T)
        for role in roles
        if np.count_nonzero((role_T == ROLES.index(role)) & usable_T) < MIN_ROWS
    ]
    if lines:
        lines.append(
            "too few bars for the labels' horizon or the model's receptive field: load more data "
            "(data.start, data.end), make bars smaller (bars.size), or lower labels.horizon, "
            "labels.span, splits.embargo, the features' windows or the model's receptive field"
        )
        raise SplitError("\n".join(lines))


def _shortage(
    split: Split,
    role: str,
    role_T: np.ndarray,
    bars: pl.DataFrame,
    labels: pl.DataFrame,
    usable_T: np.ndarray,
) -> str:
    here = split.rows(role, bars)
    labelled = here & (_label_ends(bars, labels) >= 0)
    kept = role_T == ROLES.index(role)
    return (
        f"splits: {role} has {np.count_nonzero(kept & usable_T)} usable rows, needs at least "
        f"{MIN_ROWS}; of its {np.count_nonzero(here)} bars "
        f"{np.count_nonzero(here & ~labelled)} have no label, "
        f"{np.count_nonzero(labelled & ~kept)} are purged or embargoed, "
        f"{np.count_nonzero(kept & ~usable_T)} lack known features over the receptive field"
    )


def _with_final(splits: list[Split], block: Block) -> list[Split]:
    """Gives `final` to the fold that validates last: its model would be in use when the locked
    period begins.
    """
    latest = max(splits, key=lambda split: split.hull("select")[1])
    return [
        replace(s, periods=s.periods | {"final": (block,)}) if s is latest else s for s in splits
    ]


def _runs(blocks: Iterable[Block]) -> list[Block]:
    """The blocks in time order; those that touch are joined."""
    # Equality finds all that touch, because every kind rounds an edge once for both its sides.
    runs: list[Block] = []
    for start, end in sorted(blocks):
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def inside(bars: pl.DataFrame, blocks: Iterable[Block]) -> np.ndarray:
    """bool[T]: bars that close in one of the blocks."""
    ts, out = bars["ts"].to_numpy(), np.zeros(bars.height, bool)
    for block in blocks:
        first, stop = np.searchsorted(ts, block, side="left")
        out[first:stop] = True
    return out


def _label_ends(bars: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
    """t_end per bar, -1 where there is no label."""
    # Rows are matched by their place: other bars would give each row another's label.
    if not bars["bar"].equals(labels["bar"]):
        raise SplitError(
            f"splits: bars ({bars.height} rows) and labels ({labels.height} rows) must hold the "
            "same bars: build both from the same ticks and bars"
        )
    return (
        labels.select(pl.when(pl.col("y").is_not_null()).then(pl.col("t_end")).fill_null(-1))
        .to_series()
        .to_numpy()
    )
