"""Rebuilds the order book from REST snapshots and depth diffs: a BOOK row, the best K levels a
side, after every diff of an unbroken chain.

Diffs arrive before the snapshot they belong to. Those received when the snapshot comes are applied
to it together; after that every diff gives a row. A snapshot fits when the first diff that ends at
or after it begins at or before it. A broken chain stops the book until the next snapshot. A later
snapshot replaces the book, so that a replay may begin at any snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from hft.schema import book_columns, empty
from hft.system.kernels import kernel

SIDES = ("bid", "ask")


@dataclass(frozen=True)
class Snapshot:
    """All levels at one moment: prices and quantities of bids and asks. `last_id` is the last
    update in them.
    """

    ts_recv: int
    ts_exch: int
    last_id: int
    bid: np.ndarray
    bid_qty: np.ndarray
    ask: np.ndarray
    ask_qty: np.ndarray


@dataclass(frozen=True)
class Replay:
    """A snapshot and the diffs [start, stop) to apply to it. Diffs before `emit_from` were
    buffered and give one row together.
    """

    snapshot: Snapshot
    start: int
    emit_from: int
    stop: int
    continues: bool  # the book was whole until this snapshot: no row of its own


def flag_broken_chain(diffs: pl.DataFrame) -> pl.DataFrame:
    """`broken` where a diff's prev_id is not the id of the diff before it."""
    return diffs.with_columns(
        # fill_null: the first diff follows no other, so no chain is broken there.
        broken=(pl.col("prev_id") != pl.col("last_id").shift(1)).fill_null(False)
    )


def rebuild_book(diffs: pl.DataFrame, snapshots: list[Snapshot], n_levels: int) -> pl.DataFrame:
    """BOOK plus `reason`, from diffs in the order of their ids without duplicates, with a flag
    `broken`.

    `diffs`: ts_recv (non-decreasing), ts_exch, reason, last_id, prev_id, broken, and lists bid,
    bid_qty, ask, ask_qty. Levels that the book lacks are null. A row carries the id of the last
    diff it knows as `seq`.
    """
    levels = {side: _flatten(diffs, side) for side in SIDES}
    frames = [_rows(r, diffs, levels, n_levels) for r in plan_replays(diffs, snapshots)]
    return pl.concat(frames) if frames else empty(book_columns(n_levels) | {"reason": pl.String})


def plan_replays(diffs: pl.DataFrame, snapshots: list[Snapshot]) -> list[Replay]:
    """Which diffs each snapshot carries; a snapshot that does not fit the chain is skipped."""
    # A dropped diff changes the book too, from the moment of the kept diff before it.
    known = pl.when(pl.col("reason").is_null()).then(pl.col("ts_recv")).forward_fill().fill_null(0)
    ts, last_id, prev_id = (
        s.to_numpy() for s in diffs.select(known.alias("ts"), "last_id", "prev_id")
    )
    # With a sentinel, so that every search below finds an end.
    breaks = np.append(np.flatnonzero(diffs["broken"].to_numpy()), len(ts))
    plan: list[Replay] = []
    for snapshot in sorted(snapshots, key=lambda s: s.ts_recv):
        start = int(np.searchsorted(last_id, snapshot.last_id))
        if start < len(ts) and prev_id[start] > snapshot.last_id:
            continue  # updates between the snapshot and the first diff are missing
        # side="right": a diff received together with the snapshot is applied with it.
        emit_from = max(start, int(np.searchsorted(ts, snapshot.ts_recv, side="right")))
        stop = (
            # A break at `start` itself lies before the chain, and the snapshot mends it.
            int(breaks[np.searchsorted(breaks, start, side="right")]) if start < len(ts) else start
        )
        if stop < emit_from:
            continue  # the chain broke before the snapshot came
        continues = bool(plan) and (plan[-1].stop > emit_from or plan[-1].stop == len(ts))
        # The snapshot takes over where it arrives, so that one of two replays carries each diff.
        if continues:
            plan[-1] = replace(plan[-1], stop=emit_from)
        plan.append(Replay(snapshot, start, emit_from, stop, continues))
    return plan


def _flatten(diffs: pl.DataFrame, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, prices and quantities: diff i changes levels offsets[i]:offsets[i+1]."""
    offsets = np.concatenate([[0], np.cumsum(diffs[side].list.len().to_numpy())]).astype(np.int64)
    # A diff without bids gives no level. As one null, with empty_as_null, it would shift all that
    # follow against their offsets.
    price, qty = (diffs[c].explode(empty_as_null=False).to_numpy() for c in (side, f"{side}_qty"))
    return offsets, price, qty


def _rows(
    replay: Replay,
    diffs: pl.DataFrame,
    levels: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    n_levels: int,
) -> pl.DataFrame:
    snapshot = replay.snapshot
    steps = (replay.start, replay.emit_from, replay.stop)
    best = {
        "bid": _replay(snapshot.bid, snapshot.bid_qty, *levels["bid"], *steps, n_levels, 1.0),
        "ask": _replay(snapshot.ask, snapshot.ask_qty, *levels["ask"], *steps, n_levels, -1.0),
    }
    rows = diffs.slice(replay.emit_from, replay.stop - replay.emit_from)
    times = rows.select("ts_recv", "ts_exch", pl.col("last_id").alias("seq"), "reason")
    first = _first_row(replay, diffs)
    columns = {
        f"{s}{q}_{k}": best[s][i][:, k]
        for i, q in ((0, ""), (1, "_qty"))
        for s in SIDES
        for k in range(n_levels)
    }
    frame = pl.concat([first, times]).with_columns(**columns)
    frame = frame.select(*book_columns(n_levels), "reason").with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )
    return frame.slice(1) if replay.continues else frame


def _first_row(replay: Replay, diffs: pl.DataFrame) -> pl.DataFrame:
    """Times of the row that the snapshot and its buffered diffs give together. It is known when the
    snapshot arrives.
    """
    snapshot = replay.snapshot
    ts_exch, seq = snapshot.ts_exch, snapshot.last_id
    if replay.emit_from > replay.start:
        last = diffs.row(replay.emit_from - 1, named=True)
        # The row is as of the later of the two that it knows.
        ts_exch, seq = max(ts_exch, last["ts_exch"]), last["last_id"]
    row = {"ts_recv": snapshot.ts_recv, "ts_exch": ts_exch, "seq": seq, "reason": None}
    return pl.DataFrame(
        [row],
        schema={"ts_recv": pl.Int64, "ts_exch": pl.Int64, "seq": pl.Int64, "reason": pl.String},
    )


@kernel
def _set_level(
    keys: np.ndarray, qtys: np.ndarray, n: int, key: float, qty: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Sets, adds or (qty 0) deletes one level. Keys ascend, so that the best level stands last and
    most moves are short.
    """
    i = np.searchsorted(keys[:n], key)
    found = i < n and keys[i] == key
    if qty == 0.0:
        if found:
            for j in range(i, n - 1):
                keys[j], qtys[j] = keys[j + 1], qtys[j + 1]
            n -= 1
    elif found:
        qtys[i] = qty
    else:
        if n == len(keys):  # seldom: a book's depth hardly grows
            keys, qtys = np.append(keys, np.empty(n + 16)), np.append(qtys, np.empty(n + 16))
        for j in range(n, i, -1):
            keys[j], qtys[j] = keys[j - 1], qtys[j - 1]
        keys[i], qtys[i] = key, qty
        n += 1
    return keys, qtys, n


@kernel
def _replay(
    price0: np.ndarray,
    qty0: np.ndarray,
    offsets: np.ndarray,
    prices: np.ndarray,
    qtys: np.ndarray,
    start: int,
    emit_from: int,
    stop: int,
    n_levels: int,
    sign: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Prices and quantities of the best n_levels of one side, at `emit_from` and after every diff
    of [emit_from, stop); NaN where the side has fewer.

    `sign` is +1 for bids and -1 for asks: a level's key is sign * price, so that the best level has
    the largest key.
    """
    by_key = np.argsort(sign * price0)
    # Copies: levels change in place, and read_recording keeps the snapshot for the next caller.
    keys, sizes, n = (sign * price0)[by_key], qty0[by_key], len(price0)
    n_rows = 1 + stop - emit_from
    best_price, best_qty = np.full((n_rows, n_levels), np.nan), np.full((n_rows, n_levels), np.nan)
    for i in range(start, stop + 1):
        # A row is the state before diff i, so that the first row is the snapshot with its buffered
        # diffs.
        if i >= emit_from:
            row = i - emit_from
            for k in range(min(n, n_levels)):
                best_price[row, k], best_qty[row, k] = sign * keys[n - 1 - k], sizes[n - 1 - k]
        if i < stop:
            for j in range(offsets[i], offsets[i + 1]):
                keys, sizes, n = _set_level(keys, sizes, n, sign * prices[j], qtys[j])
    return best_price, best_qty
