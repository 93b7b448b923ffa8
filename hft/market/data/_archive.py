"""Reads one daily zip of data.binance.vision: checks its sha256, parses its one CSV, scales its
times. Formats: docs/formats.md 2.

Columns are found by name where the file has a header, and by place where it has none (spot files,
old futures files).
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hft.market.data._clean import drop, flag_unsorted, refuse_values
from hft.market.data._files import Stamp, file_hash
from hft.market.ticks import DataError

MAX_RATIO = 200  # real files inflate 4 to 10 times, a bomb up to 1,032 times


@dataclass(frozen=True)
class Layout:
    """Where a kind of file keeps our columns: ours -> (name in a header, place without one)."""

    columns: dict[str, tuple[str, int]]
    widths: tuple[int, ...]  # number of columns of a file without header
    key: str
    values: tuple[str, ...]  # columns that must be > 0


_QUOTE = {
    "bid": "best_bid_price",
    "bid_qty": "best_bid_qty",
    "ask": "best_ask_price",
    "ask_qty": "best_ask_qty",
}
# Of two widths the larger is that of spot files, which have a column more (docs/formats.md 2).
LAYOUTS = {
    "trades": Layout(
        {"id": ("id", 0), "price": ("price", 1), "qty": ("qty", 2), "time": ("time", 4),
         "maker": ("is_buyer_maker", 5)},
        widths=(6, 7),
        key="id",
        values=("price", "qty"),
    ),
    "aggTrades": Layout(
        {"id": ("agg_trade_id", 0), "price": ("price", 1), "qty": ("quantity", 2),
         "first_id": ("first_trade_id", 3), "last_id": ("last_trade_id", 4),
         "time": ("transact_time", 5), "maker": ("is_buyer_maker", 6)},
        widths=(7, 8),
        key="id",
        values=("price", "qty"),
    ),
    "bookTicker": Layout(
        {"seq": ("update_id", 0), "time": ("transaction_time", 5)}
        | {ours: (theirs, 1 + place) for place, (ours, theirs) in enumerate(_QUOTE.items())},
        widths=(7,),
        key="seq",
        values=tuple(_QUOTE),
    ),
}  # fmt: skip


@functools.lru_cache(maxsize=6)  # three days of two streams: a day and its neighbours
def read_archive(key: Stamp, data_type: str) -> pl.DataFrame:
    """Raw stream (see _clean) of the zip, without ts_recv: ts_exch (ns), the layout's key and
    values, and side for trades.
    """
    path, layout = Path(key[0]), LAYOUTS[data_type]
    frame = _columns(_read_member(path), layout, path)
    if "maker" in layout.columns:
        frame = frame.with_columns(side=_side(frame, path)).drop("maker")
    frame = _ns_time(frame, path)
    return flag_unsorted(refuse_values(frame, list(layout.values), where=str(path)), layout.key)


def verify_checksum(path: Path, *, required: bool) -> None:
    """Compares the zip with `<zip>.CHECKSUM` beside it, where there is one. DataError where they
    differ, and where a `required` one is missing.
    """
    beside = path.with_name(path.name + ".CHECKSUM")
    if not beside.is_file():
        if required:
            raise DataError(
                f"{path}: {beside.name} is missing: fetch it too, "
                "or set data.require_checksum=false"
            )
        return
    # As sha256sum writes it: the hash, two spaces, the name, which a user may have changed.
    words = beside.read_text(errors="replace").split()
    found = file_hash(path)
    if not words or words[0].lower() != found:
        stated = words[0][:64] if words else "nothing"
        raise DataError(
            f"{path}: sha256 is {found}, {beside.name} says {stated}: fetch both files again"
        )


def _read_member(path: Path) -> bytes:
    """The bytes of the zip's one CSV."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise DataError(
                    f"{path}: must hold one CSV file, holds {len(members)}: "
                    "fetch it again from the vendor"
                )
            _refuse_member(members[0], path)
            return archive.read(members[0])
    # A damaged header reads as encrypted (RuntimeError) or as compressed in an unknown way
    # (NotImplementedError).
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: truncated or damaged zip ({error}): fetch it again") from None


def _refuse_member(member: zipfile.ZipInfo, path: Path) -> None:
    name = member.filename
    if name != Path(name).name or "\\" in name or not name.lower().endswith(".csv"):
        raise DataError(
            f"{path}: its member must be a plain CSV file, is {name!r}: "
            "fetch it again from the vendor"
        )
    if member.file_size == 0:
        raise DataError(
            f"{path}: {name} is empty: fetch it again, "
            "or leave the day out with data.start and data.end"
        )
    # By the sizes that the zip states, before anything is inflated.
    if member.file_size > MAX_RATIO * member.compress_size:
        ratio = member.file_size / max(member.compress_size, 1)
        raise DataError(
            f"{path}: {name} says it inflates {ratio:.0f} times to {member.file_size:,} bytes; "
            f"market data inflates at most {MAX_RATIO} times: fetch it again from the vendor"
        )


def _columns(text: bytes, layout: Layout, path: Path) -> pl.DataFrame:
    """Our columns under our names, typed, with `row` (line of the CSV) and `reason`; blank cells
    become null.
    """
    # A row begins with its id, a header with a letter.
    has_header = not text[:1].isdigit()
    try:
        # All cells as text: a bad one is refused with its row, where polars would make it null. No
        # vendor file quotes, and one stray quote would swallow the lines up to the next.
        raw = pl.read_csv(text, has_header=has_header, infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path}: unreadable CSV ({str(error).splitlines()[0]}): fetch it again"
        ) from None
    if has_header:
        missing = [name for name, _ in layout.columns.values() if name not in raw.columns]
        if missing:
            raise DataError(
                f"{path}: the header lacks {', '.join(missing)}, "
                f"has {', '.join(raw.columns)[:200]}: "
                "is this another kind of file (spot and USD-M are read)?"
            )
    elif raw.width not in layout.widths:
        widths = " or ".join(map(str, layout.widths))
        raise DataError(
            f"{path}: has {raw.width} columns and no header, must have {widths}: "
            "is this another kind of file?"
        )
    if not raw.height:
        raise DataError(
            f"{path}: holds no rows: fetch it again, "
            "or leave the day out with data.start and data.end"
        )
    picked = {
        ours: raw[name] if has_header else raw[:, place].alias(name)
        for ours, (name, place) in layout.columns.items()
    }
    typed = {ours: _typed(text, ours, 1 + has_header, path) for ours, text in picked.items()}
    # Lines as an editor counts them, for messages.
    rows = pl.int_range(1 + has_header, raw.height + 1 + has_header, dtype=pl.Int64, eager=True)
    return pl.DataFrame({"row": rows, **typed}).with_columns(reason=pl.lit(None, pl.String))


def _typed(cells: pl.Series, ours: str, first_row: int, path: Path) -> pl.Series:
    if ours == "maker":
        return cells
    dtype = pl.Int64 if ours in ("id", "seq", "time", "first_id", "last_id") else pl.Float64
    numbers = cells.cast(dtype, strict=False)
    # A blank time is dropped and counted later; any other blank is refused.
    wrong = (numbers.is_null() & cells.is_not_null()) if ours == "time" else numbers.is_null()
    for at in wrong.arg_true().head(1):
        value = "a blank" if cells[at] is None else repr(cells[at][:40])
        raise DataError(
            f"{path}, row {at + first_row}: {cells.name} must be a number, got {value}: "
            "fetch it again"
        )
    return numbers


def _side(frame: pl.DataFrame, path: Path) -> pl.Series:
    """+1 where the taker bought, -1 where it sold (the buyer was maker), 0 where the cell is blank
    (docs/definitions.md 5.3).
    """
    maker = frame["maker"].str.to_lowercase()
    for row, value in (
        frame.filter(~maker.is_in(["true", "false"])).select("row", "maker").head(1).iter_rows()
    ):
        raise DataError(
            f"{path}, row {row}: is_buyer_maker must be true or false, got {value[:40]!r}: "
            "fetch it again"
        )
    sides = (
        pl.when(maker == "true").then(-1).when(maker == "false").then(1).otherwise(0).cast(pl.Int8)
    )
    return frame.select(sides.alias("side")).to_series()


def _ns_time(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Adds ts_exch in ns. The magnitude of each time tells its unit (ms, us or ns): Binance changed
    the unit and kept the names of its files.

    A row without a time is dropped; it borrows the time of the row before to keep its place.
    """
    time = pl.col("time")
    # 10^12 ms, 10^15 us and 10^18 ns are all the same day of 2001, so the units cannot be confused.
    for row, value in frame.filter(time < 10**12).select("row", "time").head(1).iter_rows():
        raise DataError(
            f"{path}, row {row}: {value} is no time in ms or us since 1970: fetch it again"
        )
    scaled = (
        pl.when(time < 10**15)
        .then(time * 10**6)
        .when(time < 10**18)
        .then(time * 10**3)
        .otherwise(time)
    )
    # Without a time the row would lie on no day, and no day would count it.
    frame = drop(frame, time.is_null(), "no_time").with_columns(
        ts_exch=scaled.forward_fill().backward_fill()  # backward: blanks at the file's beginning
    )
    return frame.drop("time")
