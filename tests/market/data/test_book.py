"""The rebuilt book against dictionaries, message by message; orders of snapshot and diffs by
hand.
"""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft.market.data._book import Snapshot, flag_broken_chain, rebuild_book
from hft.schema import book_columns, check

levels = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=5)
message = st.tuples(levels, levels, st.booleans())


def diffs_of(messages: list[dict]) -> pl.DataFrame:
    schema = {
        "ts_recv": pl.Int64,
        "ts_exch": pl.Int64,
        "last_id": pl.Int64,
        "prev_id": pl.Int64,
        "reason": pl.String,
    }
    schema |= {f"{side}{q}": pl.List(pl.Float64) for side in ("bid", "ask") for q in ("", "_qty")}
    rows = [
        {k: m[k] for k in ("ts_recv", "ts_exch", "last_id", "prev_id")}
        | {"reason": m.get("reason")}
        | {side: [float(p) for p, _ in m[side]] for side in ("bid", "ask")}
        | {f"{side}_qty": [float(q) for _, q in m[side]] for side in ("bid", "ask")}
        for m in messages
    ]
    return flag_broken_chain(pl.DataFrame(rows, schema=schema))


def snapshot_of(ts: int, last_id: int, bid: dict, ask: dict) -> Snapshot:
    arrays = [np.array(list(a), float) for side in (bid, ask) for a in (side.keys(), side.values())]
    return Snapshot(ts, ts - 1, last_id, *arrays)


def messages_of(drawn) -> list[dict]:
    """A chain of diffs at ts 10, 20, ..; bids below 100 and asks above; a False flag breaks the
    chain before it.
    """
    found, last = [], 1000
    for i, (bids, asks, whole) in enumerate(drawn):
        previous = last if whole or not i else last + 1
        last = previous + 5
        bid, ask = [(100 - p, q) for p, q in bids], [(100 + p, q) for p, q in asks]
        found.append(
            {
                "ts_recv": 10 * (i + 1),
                "ts_exch": 10 * i,
                "prev_id": previous,
                "last_id": last,
                "bid": bid,
                "ask": ask,
            }
        )
    return found


def slow_book(messages: list[dict], snapshots: list[Snapshot], n_levels: int) -> list[tuple]:
    """Rows (ts_recv, seq, bids, asks) of the whole story in arrival order, with dictionaries,
    replayed from scratch.
    """
    rows, book = [], None
    arrivals = sorted(
        [(m["ts_recv"], 0, i, m) for i, m in enumerate(messages)]
        + [(s.ts_recv, 1, i, s) for i, s in enumerate(snapshots)],
        key=lambda a: a[:3],
    )
    for _, is_snapshot, at, item in arrivals:
        if is_snapshot:
            arrived = [m for m in messages if m["ts_recv"] <= item.ts_recv]
            fresh = replayed(item, arrived, messages)
            if fresh is not None and book is None:
                rows.append((item.ts_recv, fresh[2], best(fresh, n_levels)))
            book = fresh or book
        elif book is not None and item["last_id"] >= book[2]:
            previous = messages[at - 1]["last_id"] if at else item["prev_id"]
            chained = item["prev_id"] == previous or book[3] == "new"
            book = applied(book, item) if chained and item["prev_id"] <= book[2] else None
            if book is not None:
                rows.append((item["ts_recv"], book[2], best(book, n_levels)))
    return rows


def replayed(snapshot: Snapshot, arrived: list[dict], messages: list[dict]):
    """The snapshot with the diffs that had arrived; None when the chain is not whole from it to
    now.
    """
    book = (
        dict(zip(snapshot.bid, snapshot.bid_qty, strict=True)),
        dict(zip(snapshot.ask, snapshot.ask_qty, strict=True)),
        snapshot.last_id,
        "new",
    )
    following = [m for m in messages if m["last_id"] >= snapshot.last_id]
    if following and following[0]["prev_id"] > snapshot.last_id:
        return None
    for m in arrived:
        if m["last_id"] >= snapshot.last_id:
            if book[3] != "new" and m["prev_id"] != book[2]:
                return None
            book = applied(book, m)
    return book


def applied(book, m: dict):
    bid, ask = dict(book[0]), dict(book[1])
    for side, changes in ((bid, m["bid"]), (ask, m["ask"])):
        for price, qty in changes:
            side.pop(price, None)
            if qty:
                side[price] = qty
    return bid, ask, m["last_id"], "used"


def best(book, n_levels: int) -> tuple:
    bids, asks = (
        sorted(book[0].items(), reverse=True)[:n_levels],
        sorted(book[1].items())[:n_levels],
    )
    pad = [(None, None)] * n_levels
    return tuple((bids + pad)[:n_levels]), tuple((asks + pad)[:n_levels])


def rows_of(frame: pl.DataFrame, n_levels: int) -> list[tuple]:
    def side(row, name):
        return tuple((row[f"{name}_{k}"], row[f"{name}_qty_{k}"]) for k in range(n_levels))

    return [
        (r["ts_recv"], r["seq"], (side(r, "bid"), side(r, "ask")))
        for r in frame.iter_rows(named=True)
    ]


@settings(deadline=None)
@given(
    drawn=st.lists(message, min_size=1, max_size=12),
    n_levels=st.integers(1, 4),
    bid=st.dictionaries(st.integers(88, 99), st.integers(1, 3), max_size=6),
    ask=st.dictionaries(st.integers(101, 112), st.integers(1, 3), max_size=6),
    at=st.integers(0, 125),
    last_id=st.integers(995, 1070),
)
def test_one_snapshot_and_any_chain_give_the_book_of_dictionaries(
    drawn, n_levels, bid, ask, at, last_id
):
    messages, snapshots = messages_of(drawn), [snapshot_of(at, last_id, bid, ask)]
    book = rebuild_book(diffs_of(messages), snapshots, n_levels)
    check(book.drop("reason"), book_columns(n_levels), where="book")
    assert rows_of(book, n_levels) == slow_book(messages, snapshots, n_levels)


@settings(deadline=None)
@given(
    drawn=st.lists(message, min_size=6, max_size=12),
    n_levels=st.integers(1, 3),
    second=st.integers(2, 5),
)
def test_a_replay_may_begin_at_any_snapshot(drawn, n_levels, second):
    """A true snapshot in mid-stream changes nothing. Alone it gives the same book from there on."""
    messages = messages_of([(bids, asks, True) for bids, asks, _ in drawn])
    book = ({99: 1}, {101: 1}, 1000, "new")
    for m in messages[:second]:
        book = applied(book, m)
    first, later = (
        snapshot_of(5, 1000, {99: 1}, {101: 1}),
        snapshot_of(second * 10 + 1, book[2], book[0], book[1]),
    )
    diffs = diffs_of(messages)
    whole = rows_of(rebuild_book(diffs, [first], n_levels), n_levels)
    assert rows_of(rebuild_book(diffs, [first, later], n_levels), n_levels) == whole
    alone = rows_of(rebuild_book(diffs, [later], n_levels), n_levels)
    assert alone[1:] == whole[-len(alone) + 1 :]


def chain(n: int) -> list[dict]:
    return messages_of([([(1, i % 3 + 1)], [(2, 1)], True) for i in range(n)])


def test_buffered_diffs_are_applied_silently_when_the_snapshot_comes():
    book = rebuild_book(diffs_of(chain(4)), [snapshot_of(25, 1004, {98: 9}, {101: 9})], 2)
    assert book["ts_recv"].to_list() == [25, 30, 40]
    assert book["seq"].to_list() == [1010, 1015, 1020]
    assert book.row(0, named=True)["bid_0"] == 99.0
    assert book.row(0, named=True)["ask_0"] == 101.0


def test_without_a_snapshot_there_is_no_book():
    assert rebuild_book(diffs_of(chain(3)), [], 2).height == 0


def test_a_snapshot_older_than_the_diffs_does_not_fit():
    assert (
        rebuild_book(diffs_of(chain(3)), [snapshot_of(25, 990, {98: 9}, {101: 9})], 2).height == 0
    )


def test_a_broken_chain_stops_the_book_until_the_next_snapshot():
    messages = chain(5)
    for m in messages[2:]:
        m["prev_id"], m["last_id"] = m["prev_id"] + 7, m["last_id"] + 7
    diffs = diffs_of(messages)
    assert diffs["broken"].to_list() == [False, False, True, False, False]
    snapshots = [
        snapshot_of(5, 1000, {98: 9}, {101: 9}),
        snapshot_of(45, messages[3]["last_id"], {97: 1}, {103: 1}),
    ]
    assert rebuild_book(diffs, snapshots, 1)["ts_recv"].to_list() == [5, 10, 20, 45, 50]


def test_a_dropped_diff_changes_the_book_and_gives_no_kept_row():
    messages = chain(3)
    messages[1] |= {"reason": "late", "ts_recv": 10**6}
    book = rebuild_book(diffs_of(messages), [snapshot_of(5, 1000, {}, {})], 1)
    assert book["reason"].to_list() == [None, None, "late", None]
    assert book["bid_qty_0"].to_list() == [None, 1.0, 2.0, 3.0]


def test_many_levels_outgrow_the_arrays():
    prices = np.random.default_rng(0).permutation(np.arange(1, 500))
    messages = messages_of([([], [], True) for _ in prices])
    for m, price in zip(messages, prices, strict=True):
        m["bid"] = [(int(price), 1)]
    book = rebuild_book(diffs_of(messages), [snapshot_of(5, 1000, {}, {})], 3)
    expected = list(itertools.accumulate(prices, lambda top, p: sorted([*top, p])[-3:], initial=[]))
    assert [
        [v for v in row if v is not None]
        for row in book.select("bid_2", "bid_1", "bid_0").iter_rows()
    ] == expected


@pytest.mark.parametrize("n_levels", [1, 5])
def test_missing_levels_are_null(n_levels):
    book = rebuild_book(diffs_of(chain(1)), [snapshot_of(5, 1000, {}, {})], n_levels)
    first = book.row(0, named=True)
    assert all(first[f"{name}_{k}"] is None for name in ("bid", "ask_qty") for k in range(n_levels))
