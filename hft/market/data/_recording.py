"""Reads one file of raw websocket lines of Binance USD-M into typed raw streams. Format:
docs/formats.md 2, recorder.

A line is `<local time> <JSON>`; the magnitude of the local time tells its unit (us or ns), which
holds for the whole file. Trades, bookTicker, depth diffs and REST snapshots are read; other events
(markPrice, answers) are skipped.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hft.clock import NS_PER_MS
from hft.market.data._book import SIDES, Snapshot
from hft.market.data._clean import drop, flag_unsorted, refuse_values
from hft.market.data._files import Stamp
from hft.market.ticks import DataError

BLOCK_BYTES = 1 << 26  # a day's recording may be larger than the memory
LEVELS = pl.List(pl.List(pl.String))
# JSON fields per event, beyond T (exchange time) and s (symbol).
EVENTS: dict[str, dict[str, Any]] = {
    "trade": {"t": pl.Int64, "p": pl.String, "q": pl.String, "X": pl.String, "m": pl.Boolean},
    "bookTicker": {"u": pl.Int64, "b": pl.String, "B": pl.String, "a": pl.String, "A": pl.String},
    "depthUpdate": {"u": pl.Int64, "pu": pl.Int64, "b": LEVELS, "a": LEVELS},
}
MAY_BE_BLANK = ("T", "m", "X")  # such a row is dropped and counted, or has an unknown side


@dataclass(frozen=True)
class _Block:
    """Some lines of a file: their earliest and latest time, a raw stream per name of EVENTS."""

    first: int
    last: int
    events: dict[str, pl.DataFrame]
    snapshots: list[Snapshot]


@dataclass(frozen=True)
class Recording:
    """Raw streams of one file (see _clean) in its own clock. `torn` has a row when the file's last
    line is cut off, with the time of the line before.
    """

    trades: pl.DataFrame
    quotes: pl.DataFrame
    diffs: pl.DataFrame
    torn: pl.DataFrame
    snapshots: list[Snapshot]

    def streams(self) -> list[pl.DataFrame]:
        return [self.trades, self.quotes, self.diffs]


# The check for overlaps and the day itself ask for the same few files.
@functools.lru_cache(maxsize=3)
def read_recording(key: Stamp, symbol: str, begin: int, end: int, *, depth: bool) -> Recording:
    """The lines from local time `begin` to about `end` (ns), depth lines from the file's first on.

    Reading stops at the block of lines that passes `end`, so that a neighbouring day costs little.
    """
    path, n_torn = Path(key[0]), 0
    blocks: list[_Block] = []
    for frame in _text_blocks(path, BLOCK_BYTES):
        whole = _without_torn_end(frame)
        n_torn += frame.height - whole.height
        if whole.height:
            timed = _with_time(whole, path)
            blocks.append(_parse_block(timed, path, symbol, begin, depth=depth))
            if blocks[-1].first > end:
                break
    if not blocks:
        raise _no_whole_line(path)
    trades, quotes, diffs = (pl.concat([b.events[e] for b in blocks], rechunk=True) for e in EVENTS)
    torn = pl.DataFrame({"ts_recv": [blocks[-1].last] * n_torn}, schema={"ts_recv": pl.Int64})
    return Recording(trades, quotes, diffs, torn, [s for b in blocks for s in b.snapshots])


def _no_whole_line(path: Path) -> DataError:
    return DataError(
        f"{path}: holds no whole line: record or copy it again, or leave it out of data.path"
    )


@functools.lru_cache(maxsize=4096)
def first_time(key: Stamp) -> int:
    """Local time (ns) of the file's first line."""
    frame = next(_text_blocks(Path(key[0]), 1 << 16))
    return int(_with_time(frame.head(1), Path(key[0]))["ts_recv"][0])


@functools.lru_cache(maxsize=4096)
def last_time(key: Stamp) -> int:
    """Local time (ns) of the file's last whole line. No other line is parsed."""
    path, last = Path(key[0]), None
    for frame in _text_blocks(path, BLOCK_BYTES):
        # Two lines, because the last one may be torn.
        tail = _without_torn_end(frame.tail(2))
        last = tail.tail(1) if tail.height else last
    if last is None:
        raise _no_whole_line(path)
    return int(_with_time(last, path)["ts_recv"][0])


@functools.lru_cache(maxsize=4096)
def first_snapshot(key: Stamp) -> float:
    """Local time (ns) of the file's first REST snapshot, infinite without one. No other line is
    parsed.
    """
    for frame in _text_blocks(Path(key[0]), BLOCK_BYTES):
        lines = frame.filter(pl.col("line").str.contains('"lastUpdateId"', literal=True))
        if lines.height:
            return int(_with_time(lines.head(1), Path(key[0]))["ts_recv"][0])
    return math.inf


def _text_blocks(path: Path, block_bytes: int) -> Iterator[pl.DataFrame]:
    """Frames of `row` (line number from 1), `line`, and `end` (true in the file's last block),
    without blank lines.
    """
    rest, n_rows, empty = b"", 0, True
    for data, is_end in _bytes_blocks(path, block_bytes):
        # A block ends anywhere: its last line waits for the rest.
        data = rest + data
        cut = len(data) if is_end else data.rfind(b"\n") + 1
        text, rest = data[:cut], data[cut:]
        if not text.strip():
            continue
        # A separator that no line holds makes each line one cell; a damaged byte is replaced, and
        # the line is then refused as JSON, with its number.
        frame = pl.read_csv(
            text, separator="\x01", has_header=False, quote_char=None, new_columns=["line"],
            infer_schema=False, encoding="utf8-lossy",
        ).with_row_index("row", offset=n_rows + 1)  # fmt: skip
        n_rows += frame.height
        empty = False
        yield frame.drop_nulls("line").with_columns(
            pl.col("row").cast(pl.Int64), end=pl.lit(is_end)
        )
    if empty:
        raise DataError(
            f"{path}: the file is empty: record or copy it again, or leave it out of data.path"
        )


def _bytes_blocks(path: Path, block_bytes: int) -> Iterator[tuple[bytes, bool]]:
    with open(path, "rb") as file:
        # By its first bytes, because names tell little: .gz, .dat.gz, .dat, none.
        is_gzip = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_gzip else open(path, "rb") as file:
            block = file.read(block_bytes)
            while block:
                # One block ahead, because only the file's last block may end in half a line.
                following = file.read(block_bytes)
                yield block, not following
                block = following
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: truncated or damaged gzip ({error}): copy it again, or keep what is whole "
            f"with `zcat {path.name} > {path.stem}.txt` and point data.path at that"
        ) from None


def _with_time(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Adds ts_recv (ns) and `json`. A line that does not begin with a number has a null ts_recv;
    DataError when the first one does not begin with a time in us or ns.
    """
    parts = frame["line"].str.splitn(" ", 2)
    ts = parts.struct.field("field_0").cast(pl.Int64, strict=False)
    frame = frame.with_columns(ts_recv=ts, json=parts.struct.field("field_1").fill_null(""))
    start = ts.drop_nulls()
    if not start.len() or not 10**15 <= start[0] < 10**19:
        raise DataError(
            f"{path}, line {frame['row'][0]}: must begin with a local time in us or ns and a "
            f"space, got {frame['line'][0][:60]!r}: is this a recording of raw websocket lines?"
        )
    # 10^18 ns is the year 2001, and 10^18 us lies 31,000 years ahead.
    scale = 1 if start[0] >= 10**18 else 1000
    return frame.with_columns(pl.col("ts_recv") * scale)


def _parse_block(
    frame: pl.DataFrame, path: Path, symbol: str, begin: int, *, depth: bool
) -> _Block:
    for row in frame.filter(pl.col("ts_recv").is_null()).head(1).iter_rows(named=True):
        raise DataError(
            f"{path}, line {row['row']}: no local time: {row['line'][:60]!r}: delete that line"
        )
    ts_recv = frame["ts_recv"].to_numpy()
    # Found by text, and decoded only where wanted: most bytes are depth lines, which a run without
    # a book never parses.
    event = pl.col("json").str.extract(r'"e":\s*"(\w+)"')
    # Diffs and answers stay whatever their time: a book needs the snapshot (an answer, without
    # event name) and every diff since.
    frame = frame.with_columns(event=event).filter(
        (pl.col("ts_recv") >= begin)
        | (pl.col("event").fill_null("") == "depthUpdate")
        | pl.col("event").is_null()
    )
    frames = {
        e: _decode(frame.filter(pl.col("event") == e), e, path, symbol)
        for e in EVENTS
        if depth or e != "depthUpdate"
    }
    frames.setdefault("depthUpdate", _decode(frame.clear(), "depthUpdate", path, symbol))
    others = frame.filter(pl.col("event").is_null() | ~pl.col("event").is_in(list(EVENTS)))
    return _Block(
        first=int(ts_recv.min()),
        last=int(ts_recv.max()),
        events={
            "trade": _trades(frames["trade"], path),
            "bookTicker": _quotes(frames["bookTicker"], path),
            "depthUpdate": _diffs(frames["depthUpdate"], path),
        },
        snapshots=_snapshots(others, path) if depth else [],
    )


def _without_torn_end(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` without the half line that a killed recorder leaves at the end of its file."""
    # Only there: broken JSON anywhere else is damage, which is refused.
    torn = frame["end"][-1] and _broken_json(frame["line"][-1].partition(" ")[2]) is not None
    return frame.head(-1) if torn else frame


def _broken_json(text: str) -> str | None:
    """What is wrong with `text` as JSON; None when nothing is."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return str(error)
    return None


def _decode(frame: pl.DataFrame, event: str, path: Path, symbol: str) -> pl.DataFrame:
    """row, ts_recv, T and the columns of EVENTS[event]. DataError names the first line that lacks
    one.
    """
    fields: dict[str, Any] = {"T": pl.Int64, "s": pl.String} | EVENTS[event]
    rows = frame.select("row", "ts_recv", pl.lit(None, pl.String).alias("reason"))
    if not frame.height:
        return rows.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in fields.items())
    try:
        data = (
            frame["json"]
            .str.json_decode(pl.Struct({"data": pl.Struct(fields)}))
            .struct.field("data")
            .struct.unnest()
        )
    except pl.exceptions.ComputeError as error:
        raise _bad_line(frame, path, str(error).splitlines()[0]) from None
    # The decoder counts values, not lines: two in one line would shift all rows after it.
    if data.height != frame.height:
        raise _bad_line(frame, path, "the line holds more or less than one JSON value")
    rows = rows.hstack(data)
    for name in fields:
        for row in rows.filter(pl.col(name).is_null()).head(1).iter_rows(named=True):
            if name not in MAY_BE_BLANK:
                raise DataError(
                    f"{path}, line {row['row']}: {event} without a field {name!r}: delete that line"
                )
    for row in rows.filter(pl.col("s") != symbol).head(1).iter_rows(named=True):
        raise DataError(
            f"{path}, line {row['row']}: holds {row['s']}, data.symbol is {symbol}: "
            "narrow data.path to files of one symbol, or set data.symbol"
        )
    return rows.drop("s")


def _bad_line(frame: pl.DataFrame, path: Path, why: str) -> DataError:
    # polars does not say which line; Python's decoder does, and runs only once one is bad.
    for row, text in frame.select("row", "json").iter_rows():
        broken = _broken_json(text)
        if broken is not None:
            return DataError(
                f"{path}, line {row}: unreadable JSON ({broken}): delete or repair that line"
            )
    return DataError(
        f"{path}, lines {frame['row'][0]} to {frame['row'][-1]}: {why}: repair or delete the line"
    )


def _number(name: str) -> pl.Expr:
    """Text to float. What is no number becomes NaN, which `refuse_values` refuses with its row."""
    return pl.col(name).cast(pl.Float64, strict=False).fill_null(float("nan"))


def _common(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """Adds ts_exch and `unsorted`. A row without exchange time is dropped (docs/definitions.md
    5.3); it borrows the time of the row before to keep its place.
    """
    frame = drop(frame, pl.col("T").is_null(), "no_time")
    return flag_unsorted(
        frame.with_columns(ts_exch=pl.col("T").forward_fill() * NS_PER_MS).drop("T"), key
    )


def _trades(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    # m: the buyer was maker, so the taker sold.
    side = pl.when(pl.col("m")).then(-1).when(~pl.col("m")).then(1).otherwise(0).cast(pl.Int8)
    frame = frame.select(
        "row", "reason", "ts_recv", "T", "X", pl.col("t").alias("id"), _number("p").alias("price"),
        _number("q").alias("qty"), side.alias("side"),
    )  # fmt: skip
    # Insurance fund and other prints that no market order made. A blank X counts as a market's.
    frame = drop(frame, pl.col("X") != "MARKET", "not_market").drop("X")
    return _common(refuse_values(frame, ["price", "qty"], where=str(path)), "id")


def _quotes(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    names = {"b": "bid", "B": "bid_qty", "a": "ask", "A": "ask_qty"}
    frame = frame.select(
        "row",
        "reason",
        "ts_recv",
        "T",
        pl.col("u").alias("seq"),
        *(_number(n).alias(to) for n, to in names.items()),
    )
    return _common(refuse_values(frame, list(names.values()), where=str(path)), "seq")


def _diffs(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Levels of each diff as lists of prices and quantities. A quantity may be 0 (the level is
    deleted), a price may not.
    """
    # A level of one cell becomes null, then NaN, and is refused below.
    number = pl.element().list.get(0, null_on_oob=True), pl.element().list.get(1, null_on_oob=True)
    frame = frame.with_columns(
        pl.col(short)
        .list.eval(cell.cast(pl.Float64, strict=False).fill_null(float("nan")))
        .alias(f"{side}{q}")
        for short, side in zip("ba", SIDES, strict=True)
        for cell, q in zip(number, ("", "_qty"), strict=True)
    )
    for side in SIDES:
        price, qty = (
            pl.element().is_finite() & (pl.element() > 0),
            pl.element().is_finite() & (pl.element() >= 0),
        )
        good = (
            pl.col(side).list.eval(price).list.all()
            & pl.col(f"{side}_qty").list.eval(qty).list.all()
        )
        for row in frame.filter(~good).head(1).iter_rows(named=True):
            raise DataError(
                f"{path}, line {row['row']}: each level of {side} must have a price > 0 and a "
                "quantity >= 0: delete that line"
            )
    frame = frame.rename({"u": "last_id", "pu": "prev_id"}).drop("b", "a")
    return _common(frame, "last_id")


def _snapshots(lines: pl.DataFrame, path: Path) -> list[Snapshot]:
    """The REST snapshots among lines that are no event of ours. DataError when a line is no
    JSON.
    """
    found = []
    for row, ts_recv, text in lines.select("row", "ts_recv", "json").iter_rows():
        # Every line is decoded, wanted or not: broken JSON is damage wherever it stands.
        broken = _broken_json(text)
        if broken is not None:
            raise DataError(
                f"{path}, line {row}: unreadable JSON ({broken}): delete or repair that line"
            )
        answer = json.loads(text)
        if isinstance(answer, dict) and "lastUpdateId" in answer:
            found.append(_snapshot(answer, ts_recv, f"{path}, line {row}"))
    return found


def _snapshot(answer: dict[str, Any], ts_recv: int, where: str) -> Snapshot:
    try:
        # reshape: an empty side has no second dimension.
        bids, asks = (
            np.array(answer[side], dtype=np.float64).reshape(-1, 2) for side in ("bids", "asks")
        )
        ts_exch, last_id = int(answer["T"]) * NS_PER_MS, int(answer["lastUpdateId"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: a REST snapshot must have lastUpdateId, T, bids and asks ({error!r})"
        ) from None
    # Columns of a 2-d array are strided, and a kernel would be compiled again for such arrays.
    columns = (np.ascontiguousarray(c) for c in (*bids.T, *asks.T))
    return Snapshot(ts_recv, ts_exch, last_id, *columns)
