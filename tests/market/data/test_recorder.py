"""`data=recorder` on small recordings written here and on the real captures."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_MS, to_iso
from hft.market.data import _recording as recording
from hft.market.data import load_ticks
from hft.market.ticks import DataError
from tests.market.data.captures import shared
from tests.market.data.vendor import (
    MIDNIGHT,
    MS,
    T0,
    diff,
    quote,
    recorder,
    snapshot,
    trade,
    write_lines,
)

BIDS, ASKS = [["100.4", "1"], ["100.3", "2"]], [["100.6", "1"], ["100.7", "2"]]


def session(
    start_ms: int = T0, *, delay_ms: float = 5, first_id: int = 1, n: int = 20
) -> list[str]:
    """A snapshot and n of each event, a second apart, in order of receipt."""
    lines = [
        diff(99 + first_id, 100 + first_id, start_ms, bids=[("100.4", "3")], delay_ms=delay_ms),
        snapshot(100 + first_id, start_ms + 1, bids=BIDS, asks=ASKS, delay_ms=delay_ms),
    ]
    for i in range(1, n):
        at, u = start_ms + 1000 * i, 100 + first_id + i
        lines += [
            trade(first_id + i, at, delay_ms=delay_ms),
            quote(u, at + 1, delay_ms=delay_ms),
            diff(u - 1, u, at + 1, bids=[("100.4", str(i))], delay_ms=delay_ms),
        ]
    return lines


def recording_of(folder, lines, *, name="btcusdt_20231114.gz", **changes):
    return recorder(write_lines(folder / name, lines), **changes)


# Small recordings


@pytest.mark.parametrize("name", ["btcusdt_20231114.gz", "btcusdt_20231114.dat"])
def test_streams_times_and_sides(tmp_path, name):
    ticks = load_ticks(recording_of(tmp_path, session(), name=name))
    assert ticks.trades.height == ticks.quotes.height == 19
    assert ticks.trades.row(0) == (
        (T0 + 1005) * MS,
        (T0 + 1000) * MS,
        2,
        100.5,
        0.002,
        -1,
    )  # m=true: the taker sold
    assert ticks.trades["side"].to_list()[1] == 1
    assert ticks.quotes.row(0) == ((T0 + 1006) * MS, (T0 + 1001) * MS, 102, 100.4, 1.0, 100.6, 2.0)
    assert ticks.book["bid_qty_0"].to_list()[:3] == [3.0, 1.0, 2.0]
    assert (ticks.start, ticks.end) == ((T0 + 6) * MS, ticks.last_event() + 1)
    assert ticks.notes["clock_shift_ms"] == 0.0


def test_microseconds_are_found_by_magnitude(tmp_path):
    lines = [f"{int(line[:19]) // 1000}{line[19:]}" for line in session()]
    assert load_ticks(recording_of(tmp_path, lines)).trades["ts_recv"][0] == (T0 + 1005) * MS


def test_no_depth_line_is_read_without_a_book(tmp_path):
    lines = [line.replace('"lastUpdateId"', '"other"') for line in session()]
    ticks = load_ticks(recording_of(tmp_path, lines, book_levels=0))
    assert (ticks.book.width, ticks.trades.height) == (3, 19)


def test_a_clock_behind_the_exchange_is_shifted_to_the_floor(tmp_path):
    ticks = load_ticks(recording_of(tmp_path, session(delay_ms=-1500)))
    assert ticks.notes["clock_shift_ms"] == 1501.0
    assert (ticks.trades["ts_recv"] - ticks.trades["ts_exch"]).to_list() == [NS_PER_MS] * 19


def test_the_shift_is_that_of_the_first_day_loaded(tmp_path):
    write_lines(tmp_path / "btcusdt_a", session(T0, delay_ms=-20))
    write_lines(tmp_path / "btcusdt_b", session(MIDNIGHT + 1000, delay_ms=-30, first_id=20))
    assert recorder(tmp_path).calibrate() == {"clock_shift_ns": 21 * MS}
    assert recorder(tmp_path, start="2023-11-15").calibrate() == {"clock_shift_ns": 31 * MS}
    ticks = load_ticks(recorder(tmp_path))
    assert ticks.notes["trades_clock_raised"] == 19
    assert ((ticks.trades["ts_recv"] - ticks.trades["ts_exch"]) >= NS_PER_MS).all()


def test_days_are_cut_after_the_repair_so_a_day_reads_the_file_before(tmp_path):
    write_lines(tmp_path / "btcusdt_a", session(MIDNIGHT - 10_000, delay_ms=-1500, n=10))
    write_lines(tmp_path / "btcusdt_b", session(MIDNIGHT + 2000, delay_ms=-1500, first_id=10))
    spec = recorder(tmp_path)
    days = spec.days()
    assert days == [dt.date(2023, 11, 14), dt.date(2023, 11, 15)]
    first, second = (spec.read_day(day, spec.calibrate()) for day in days)
    assert first.end == second.start == MIDNIGHT * MS
    assert first.trades["ts_recv"].max() < MIDNIGHT * MS <= second.trades["ts_recv"].min()
    assert pl.concat([first.trades, second.trades])["id"].to_list() == [
        *range(2, 11),
        *range(11, 30),
    ]
    assert len(spec.content(days[1])["files"]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_lost_or_doubled_at_midnight(tmp_path, seed):
    """With delays as wild as allowed around midnight, in files that end anywhere, every id comes
    once and in order.
    """
    rng = np.random.default_rng(seed)
    n = 400
    times = MIDNIGHT + np.sort(rng.integers(-4000, 4000, n))
    events = [(int(t), float(d)) for t, d in zip(times, rng.uniform(-3000, 3000, n), strict=True)]
    lines = sorted(
        (trade(i, t, delay_ms=d) for i, (t, d) in enumerate(events)),
        key=lambda line: int(line.split()[0]),
    )
    cuts = sorted(rng.choice(np.arange(10, n - 10), 2, replace=False))
    for name, part in zip("abc", np.split(np.array(lines, dtype=object), cuts), strict=True):
        write_lines(tmp_path / f"btcusdt_{name}", list(part))
    ticks = load_ticks(recorder(tmp_path, book_levels=0))
    assert ticks.trades["id"].to_list() == list(range(n))
    assert ticks.trades["ts_recv"].is_sorted()


def test_prints_that_are_no_market_trades_are_dropped_and_counted(tmp_path):
    lines = session()
    lines[8] = trade(4, T0 + 3000, X="INSURANCE_FUND", p="0")
    ticks = load_ticks(recording_of(tmp_path, lines))
    assert ticks.notes["trades_not_market"] == 1
    assert 4 not in ticks.trades["id"]
    assert ticks.gaps.tolist() == []


def test_late_duplicate_unsorted_and_untimed_rows_are_counted(tmp_path):
    lines = session()
    lines += [
        trade(5, T0 + 4000, delay_ms=16_000),
        trade(21, T0 + 500, delay_ms=20_000),
        quote(200, T0 + 20_000, T=None),
    ]
    ticks = load_ticks(recording_of(tmp_path, lines, book_levels=0))
    names = (
        "trades",
        "trades_late",
        "trades_duplicate",
        "trades_unsorted",
        "quotes",
        "quotes_no_time",
    )
    assert [ticks.notes.get(name, 0) for name in names] == [19, 2, 0, 0, 19, 1]
    again = load_ticks(recording_of(tmp_path, [*session(), trade(20, T0 + 19_000, delay_ms=10)]))
    assert again.notes["trades_duplicate"] == 1
    assert again.trades["id"].to_list() == list(range(2, 21))


def test_lines_out_of_order_are_sorted_and_counted(tmp_path):
    lines = session()
    lines[2], lines[5] = lines[5], lines[2]
    ticks = load_ticks(recording_of(tmp_path, lines, book_levels=0))
    assert ticks.trades.equals(load_ticks(recording_of(tmp_path, session(), book_levels=0)).trades)
    assert ticks.notes["trades_unsorted"] == 1


def test_a_blank_side_is_unknown(tmp_path):
    lines = [*session(), trade(21, T0 + 20_000, m=None)]
    ticks = load_ticks(recording_of(tmp_path, lines))
    assert ticks.trades["side"][-1] == 0
    assert ticks.notes["unknown_side_share"] == 1 / 20


def test_a_torn_last_line_is_dropped_and_counted(tmp_path):
    lines = session()
    spec = recorder(write_lines(tmp_path / "btcusdt", [*lines, lines[-1][:40]], end=""))
    assert load_ticks(spec).notes["lines_torn"] == 1
    assert (
        load_ticks(recorder(write_lines(tmp_path / "whole", lines, end=""))).notes["lines_torn"]
        == 0
    )


def test_a_lost_trade_and_a_lost_diff_start_gaps(tmp_path):
    lines = session()
    without = [line for line in lines if '"t": 5,' not in line and '"pu": 110,' not in line]
    ticks = load_ticks(recording_of(tmp_path, without))
    assert ticks.gaps.tolist() == [(T0 + 5005) * MS, (T0 + 11_006) * MS]
    assert ticks.notes["trades_missing_ids"] == 1
    assert ticks.book["ts_recv"][-1] < (T0 + 10_006) * MS  # no snapshot after the broken chain


def test_a_silence_is_a_gap(tmp_path):
    lines = session() + session(T0 + 400_000, first_id=20)[2:]
    ticks = load_ticks(recording_of(tmp_path, lines, book_levels=0))
    assert [to_iso(t) for t in ticks.gaps] == [to_iso((T0 + 401_005) * MS)]


def test_the_book_of_a_day_starts_from_a_snapshot_in_an_older_file(tmp_path):
    day = 86_400_000
    write_lines(tmp_path / "btcusdt_1", session(MIDNIGHT - 40_000))
    for i, start in enumerate(
        [MIDNIGHT + 20_000, MIDNIGHT + day - 40_000, MIDNIGHT + day + 20_000], start=1
    ):
        later = session(start, first_id=1 + 20 * i, n=21)
        link = diff(100 + 20 * i, 101 + 20 * i, start, bids=[("100.4", "3")])
        write_lines(tmp_path / f"btcusdt_{1 + i}", [link, *later[2:][: 3 * 19]])
    spec = recorder(tmp_path, gap_s=1e6)
    last = spec.read_day(spec.days()[-1], spec.calibrate())
    whole = load_ticks(spec)
    assert last.book.height == 20
    assert last.book.equals(whole.book.tail(20))


def test_blocks_of_a_long_file_read_as_the_whole(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "btcusdt.gz", [*session(), "17000"], end="")
    whole = load_ticks(recorder(path))
    recording.read_recording.cache_clear()
    monkeypatch.setattr(recording, "BLOCK_BYTES", 700)
    parts = load_ticks(recorder(path))
    assert all(a.equals(b) for a, b in zip(whole.streams(), parts.streams(), strict=True))
    assert whole.notes == parts.notes


def test_a_configured_range_is_kept(tmp_path):
    start, end = to_iso((T0 + 5000) * MS)[:-1], to_iso((T0 + 10_000) * MS)[:-1]
    ticks = load_ticks(recording_of(tmp_path, session(), start=start, end=end))
    assert (ticks.start, ticks.end) == ((T0 + 5000) * MS, (T0 + 10_000) * MS)
    assert ticks.trades["id"].to_list() == [6, 7, 8, 9, 10]


# Bad input


def refused(spec, match):
    with pytest.raises(DataError, match=match) as caught:
        load_ticks(spec)
    assert "Traceback" not in str(caught.value)


def test_missing_files(tmp_path):
    refused(
        recorder(tmp_path / "none"),
        "data.path: no such folder or file, and no file matches the glob",
    )
    write_lines(tmp_path / "ethusdt_20231114", session())
    refused(
        recorder(tmp_path), r"no file in the folder .* matches .*check data\.path and data\.symbol"
    )


def test_empty_and_blank_files(tmp_path):
    refused(recorder(write_lines(tmp_path / "a", [], end="")), "a: the file is empty")
    refused(recorder(write_lines(tmp_path / "b.gz", [], end="")), r"b\.gz: the file is empty")
    refused(recorder(write_lines(tmp_path / "c", ["", ""])), "c: the file is empty")
    refused(
        recorder(write_lines(tmp_path / "d", ["1700000000000000000 {"], end="")),
        "d: holds no whole line",
    )


def test_truncated_gzip(tmp_path):
    path = write_lines(tmp_path / "btcusdt.gz", session())
    path.write_bytes(path.read_bytes()[:-30])
    refused(
        recorder(path), r"btcusdt\.gz: truncated or damaged gzip .*zcat btcusdt\.gz > btcusdt\.txt"
    )


def test_damaged_gzip(tmp_path):
    path = write_lines(tmp_path / "btcusdt.gz", session())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(recorder(path), "truncated or damaged gzip")


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (session()[5][:60], "line 6: unreadable JSON"),
        (session()[5][:-1], "line 6: unreadable JSON"),
        (f"{T0}000000 hello", "line 6: unreadable JSON"),
        ("hello world", "line 6: no local time: 'hello world'"),
        (trade(4, T0 + 2000, p="0.0"), r"row 6: price must be a finite number > 0, got 0\.0"),
        (trade(4, T0 + 2000, p="NaN"), "row 6: price must be a finite number > 0, got nan"),
        (trade(4, T0 + 2000, q="-1"), r"row 6: qty must be a finite number > 0, got -1\.0"),
        (trade(4, T0 + 2000, q="lots"), "row 6: qty must be a finite number > 0"),
        (trade(4, T0 + 2000, t=None), "line 6: trade without a field 't'"),
        (trade(4, T0 + 2000, t="x"), "lines 3 to .*: error deserializing JSON"),
        (trade(4, T0 + 2000, s="ETHUSDT"), r"line 6: holds ETHUSDT, data\.symbol is BTCUSDT"),
        (quote(104, T0 + 2000, b="-5"), r"row 6: bid must be a finite number > 0, got -5\.0"),
        (
            diff(102, 103, T0 + 2001, bids=[("100", "-1")]),
            "line 6: each level of bid must have a price > 0 and a quantity >= 0",
        ),
        (
            f'{T0}000000 {{"lastUpdateId": 5}}',
            "line 6: a REST snapshot must have lastUpdateId, T, bids and asks",
        ),
    ],
)
def test_bad_lines(tmp_path, bad, match):
    lines = session()
    lines[5] = bad
    refused(recording_of(tmp_path, lines), match)


def test_not_a_recording(tmp_path):
    refused(
        recorder(write_lines(tmp_path / "a", ["id,price", "1,2"])),
        "line 1: must begin with a local time in us or ns",
    )


def test_a_clock_that_is_hours_off(tmp_path):
    lines = [*session(), trade(22, T0 + 10_000_000, delay_ms=-9_000_000)]
    refused(recording_of(tmp_path, lines), "local times are up to 9000 s behind the exchange's")


def test_a_book_without_any_snapshot(tmp_path):
    lines = [line for line in session() if "lastUpdateId" not in line]
    refused(
        recording_of(tmp_path, lines), r"no REST snapshot in the recording .*data\.book_levels=0"
    )


def test_crossed_quotes(tmp_path):
    lines = [line.replace('"b": "100.40"', '"b": "100.60"') for line in session()]
    refused(recording_of(tmp_path, lines), "19 of 19 rows of quotes have bid >= ask")


def test_no_trades(tmp_path):
    refused(
        recording_of(tmp_path, [line for line in session() if '"trade"' not in line]),
        "no trades between",
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"start": "2023-11-16"},
            r"data\.start: 2023-11-16 lies outside the data, whose days are 2023-11-14 to",
        ),
        ({"start": "2023-11-10"}, r"data\.start: 2023-11-10 lies outside"),
        ({"end": "2023-11-20"}, r"data\.end: 2023-11-20 lies outside"),
        ({"end": "2023-11-14"}, r"data\.end: 2023-11-14 lies outside"),
        ({"start": "2023-11-14T23:00"}, "no trades between 2023-11-14T23:00"),
    ],
)
def test_a_range_outside_the_data(tmp_path, changes, match):
    refused(recording_of(tmp_path, session(), **changes), match)


def test_files_that_overlap(tmp_path):
    write_lines(tmp_path / "btcusdt_1", session())
    write_lines(tmp_path / "btcusdt_2", session(T0 + 1000))
    refused(
        recorder(tmp_path, max_delay_s=1.0),
        r"btcusdt_1 runs on to .*, past the beginning of the next file",
    )


# Real captures


def test_the_capture_of_2023():
    spec = recorder(shared("binance_ws", "btcusdt_2023*"))
    ticks = load_ticks(spec)
    assert (ticks.trades.height, ticks.quotes.height, ticks.book.height) == (12_934, 44_205, 16_111)
    assert ticks.notes["trades_not_market"] == 1  # INSURANCE_FUND
    assert ticks.gaps.tolist() == []
    assert 10 < ticks.notes["clock_shift_ms"] < 50


def test_the_clock_of_2024_is_one_and_a_half_seconds_behind():
    spec = recorder(shared("binance_ws", "btcusdt_2024*"))
    ticks = load_ticks(spec)
    assert (ticks.trades.height, ticks.quotes.height) == (10_701, 52_260)
    assert 1500 < ticks.notes["clock_shift_ms"] < 1550
    assert ticks.notes["trades_missing_ids"] == 0
    assert ticks.gaps.tolist() == []
    for stream in ticks.streams():
        assert ((stream["ts_recv"] - stream["ts_exch"]) >= NS_PER_MS).all()


@pytest.mark.parametrize(("year", "least"), [("2023", 1500), ("2024", 600)])
def test_the_rebuilt_book_is_the_book_ticker_at_equal_update_ids(year, least):
    ticks = load_ticks(recorder(shared("binance_ws", f"btcusdt_{year}*")))
    both = ticks.book.join(ticks.quotes, on="seq", suffix="_quote")
    assert both.height > least
    for name in ("bid", "bid_qty", "ask", "ask_qty"):
        assert (both[f"{name}_0"] == both[name]).all()
