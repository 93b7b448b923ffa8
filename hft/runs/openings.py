"""Which rows a backtest may read: a run's own test period, its locked final one, or other data.

In: a BacktestConfig, the run's own config, the market. Out: the blocks to score, where to cut the
market, and notes for the scorecard. Every reading is counted. Data that hold rows which the run was
trained on, or rows that are locked, raise DataError.
"""

from __future__ import annotations

from collections.abc import Sequence

from hft.clock import to_iso
from hft.config.configs import BacktestConfig, DataKeys, TrainConfig
from hft.dataset.splits import Block, Split, make_periods, open_until, reads_until
from hft.dataset.stages import Market
from hft.market.ticks import DataError
from hft.runs.folder import Run
from hft.runs.frames import make_keys
from hft.runs.jobs import read_data_keys
from hft.spec import SpecError

Part = tuple[int, int, Block]  # fold, path, block of time


def rows_to_score(
    config: BacktestConfig, trained: TrainConfig, market: Market, run: Run
) -> tuple[list[Part], int, list[str]]:
    """(fold, path, block) of all that is scored, the ns at which to cut the market, and notes."""
    known = read_data_keys(run)
    moved = known.moved(make_keys(trained, market))
    splits = make_periods(*known.span, trained.splits)
    # The fold that validates last: its model would be in use when other data begin.
    latest = max(splits, key=lambda split: split.hull("select")[1])
    start, end = market.ticks.start, market.ticks.end
    if config.data.plain() != trained.data.plain():
        notes = [_open_elsewhere(config, trained, market, run, splits, latest)]
        # Other data give other bars by themselves. Only definitions can have moved.
        notes += _code_moved(known, [name for name in moved if name in ("features", "labels")])
        return [(latest.fold, 0, (start, end))], end, notes
    role = "final" if config.open_final else "test"
    if config.open_final and "final" not in latest.periods:
        raise SpecError(f"open_final: run {run.id} has no locked period (splits.final was 0)")
    if config.open_final:
        parts = [(latest.fold, 0, block) for block in latest.periods["final"]]
    else:
        parts = [
            (s.fold, p, b) for s in splits for p, b in zip(s.paths, s.periods["test"], strict=True)
        ]
    first, last = min(block[0] for _, _, block in parts), max(block[1] for _, _, block in parts)
    if first < start or end < last:
        raise DataError(
            f"data: {to_iso(start)} to {to_iso(end)} does not hold the {role} period of run "
            f"{run.id} ({to_iso(first)} to {to_iso(last)}); bring its files back, or choose other "
            "data: data=<kind>"
        )
    # Counted before anything is scored: an attempt that is killed has had its look.
    notes = [f"opening {run.count_opening(role, config.plain())} of this run's {role} period"]
    notes += _code_moved(known, moved)
    # Unless `final` is opened the market ends where it begins: no label and no exit reaches into
    # it.
    return parts, known.span[1] if config.open_final else open_until(splits), notes


def _code_moved(known: DataKeys, moved: list[str]) -> list[str]:
    """Notes for the card of a run that was trained on other definitions. It is scored all the same:
    any edit of the code, and another version of a library, moves a key.
    """
    notes = []
    if moved:
        notes.append(
            f"code moved: other data, code or libraries than in training make its "
            f"{' and '.join(moved)}"
        )
    if not known.features:
        notes.append("code moved: this run's version kept no keys of features and labels")
    return notes


def _open_elsewhere(
    config: BacktestConfig,
    trained: TrainConfig,
    market: Market,
    run: Run,
    splits: list[Split],
    latest: Split,
) -> str:
    """Counts the reading of other data than the run's own, or of another part of them; the note
    that says so.

    Raises DataError where they hold rows that the run was trained on, or rows that are locked.
    """
    if config.open_final:
        raise SpecError(
            "open_final: the locked period is one of the run's own data; leave data=from_run"
        )
    # By market, not by file: another recording of the same hours holds the same rows.
    same = config.data.source() == trained.data.source()
    start, end = market.ticks.start, market.ticks.end
    # Up to the end of the last validation: rows that were fitted, calibrated or chosen on. With
    # cpcv that includes the test rows between them.
    first, until = read_data_keys(run).span[0], reads_until(splits)
    shown = f"data: {to_iso(start)} to {to_iso(end)} holds rows"
    if same and start < until and first < end:
        raise DataError(
            f"{shown} that run {run.id} was trained on ({to_iso(first)} to {to_iso(until)}); set "
            f"data.start={to_iso(until)} or later, or leave data=from_run for its test period"
        )

    def touches(blocks: Sequence[Block]) -> bool:
        return same and any(start < last and begin < end for begin, last in blocks)

    locked = latest.periods.get("final", ())
    if touches(locked):
        begins, ends = to_iso(locked[0][0]), to_iso(locked[-1][1])
        raise DataError(
            f"{shown} of the locked period of run {run.id} ({begins} to {ends}); set data.end="
            f"{begins} or earlier, or open it: open_final=true with data=from_run"
        )
    if any(touches(split.periods["test"]) for split in splits):
        count = run.count_opening("test", config.plain())
        return f"opening {count} of rows of this run's test period"
    # Rows of another market wear out by repeated looks as those of a test period do.
    count = run.count_opening("other", config.plain())
    return f"opening {count} of other data than the run's own test period"
