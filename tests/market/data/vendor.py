"""Small files in the vendors' formats (docs/formats.md 2) for tests: lines of a recorder, zips of
the Binance archive.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from pathlib import Path

from hft.market.data.binance import Binance
from hft.market.data.recorder import Recorder

MS = 1_000_000
T0 = 1_700_000_000_000  # 2023-11-14T22:13:20Z in ms
MIDNIGHT = 1_700_006_400_000  # the next one
TRADE_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"
AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
QUOTE_HEADER = (
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
)


def recorder(path: Path, **changes) -> Recorder:
    fields = {
        "symbol": "BTCUSDT",
        "start": "first",
        "end": "last",
        "gap_s": 300.0,
        "book_levels": 2,
    }
    fields |= {"feed_latency_floor_ms": 1.0, "max_delay_s": 10.0}
    return Recorder(kind="recorder", path=str(path), **fields | changes)


def binance(path: Path, **changes) -> Binance:
    fields = {
        "symbol": "BTCUSDT",
        "start": "first",
        "end": "last",
        "gap_s": 300.0,
        "trades": "trades",
        "quotes": "none",
    }
    fields |= {"feed_latency_ms": 5.0, "require_checksum": True}
    return Binance(kind="binance", path=str(path), **fields | changes)


def event(kind: str, time_ms: int, data: dict, delay_ms: float) -> str:
    data = {"e": kind, "E": time_ms, "T": time_ms, "s": "BTCUSDT"} | data
    message = json.dumps({"stream": f"btcusdt@{kind}", "data": data})
    return f"{int((time_ms + delay_ms) * MS)} {message}"


def trade(i: int, time_ms: int, *, delay_ms: float = 5, **changes) -> str:
    data = {"t": i, "p": "100.50", "q": "0.002", "X": "MARKET", "m": i % 2 == 0}
    return event("trade", time_ms, data | changes, delay_ms)


def quote(u: int, time_ms: int, *, delay_ms: float = 5, **changes) -> str:
    data = {"u": u, "b": "100.40", "B": "1.000", "a": "100.60", "A": "2.000"}
    return event("bookTicker", time_ms, data | changes, delay_ms)


def diff(previous: int, last: int, time_ms: int, *, bids=(), asks=(), delay_ms: float = 5) -> str:
    data = {
        "U": previous + 1,
        "u": last,
        "pu": previous,
        "b": [list(b) for b in bids],
        "a": [list(a) for a in asks],
    }
    return event("depthUpdate", time_ms, data, delay_ms)


def snapshot(last: int, time_ms: int, *, bids, asks, delay_ms: float = 50) -> str:
    answer = {
        "lastUpdateId": last,
        "E": time_ms,
        "T": time_ms,
        "bids": list(bids),
        "asks": list(asks),
    }
    return f"{int((time_ms + delay_ms) * MS)} {json.dumps(answer)}"


def write_lines(path: Path, lines: list[str], *, end: str = "\n") -> Path:
    text = ("\n".join(lines) + end).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_zip(
    folder: Path, data_type: str, day: str, text: str, *, checksum: bool = True, member: str = ""
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"BTCUSDT-{data_type}-{day}"
    path = folder / f"{stem}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member or f"{stem}.csv", text)
    if checksum:
        write_checksum(path)
    return path


def write_checksum(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".CHECKSUM").write_text(f"{digest}  {path.name}\n")


def trade_rows(
    first_id: int, times: list[int], *, header: str = TRADE_HEADER, maker: tuple = ("true", "false")
) -> str:
    rows = [f"{first_id + i},100.5,0.002,0.201,{t},{maker[i % 2]}" for i, t in enumerate(times)]
    return "\n".join([header] * bool(header) + rows) + "\n"


def quote_rows(first_id: int, times: list[int]) -> str:
    rows = [f"{first_id + i},100.4,1.0,100.6,2.0,{t},{t}" for i, t in enumerate(times)]
    return "\n".join([QUOTE_HEADER, *rows]) + "\n"
