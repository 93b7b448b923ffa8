"""`data=binance` on small archives written here and on the real days of 2024."""

from __future__ import annotations

import datetime as dt
import zipfile

import pytest

from hft.market.data import load_ticks
from hft.market.ticks import DataError
from tests.market.data.captures import shared
from tests.market.data.vendor import (
    AGG_HEADER,
    MIDNIGHT,
    MS,
    T0,
    binance,
    quote_rows,
    recorder,
    trade_rows,
    write_checksum,
    write_zip,
)

TIMES = [T0 + 100 * i for i in range(20)]
DAY = "2023-11-14"


def day_zip(folder, text="", *, data_type="trades", day=DAY, **more):
    return write_zip(folder, data_type, day, text or trade_rows(1, TIMES), **more)


def refused(spec, match):
    with pytest.raises(DataError, match=match):
        load_ticks(spec)


# Layouts


def test_times_sides_and_end(tmp_path):
    day_zip(tmp_path)
    ticks = load_ticks(binance(tmp_path))
    assert ticks.trades.row(0) == ((T0 + 5) * MS, T0 * MS, 1, 100.5, 0.002, -1)
    assert ticks.trades["side"].to_list() == [-1, 1] * 10
    assert (ticks.start, ticks.end) == ((T0 + 5) * MS, ticks.last_event() + 1)
    assert (ticks.quotes.height, ticks.book.height, ticks.notes["trades"]) == (0, 0, 20)


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000])
@pytest.mark.parametrize("maker", [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
@pytest.mark.parametrize("header", ["", "id,price,qty,quote_qty,time,is_buyer_maker"])
def test_units_spellings_and_headers_give_the_same_trades(tmp_path, unit, maker, header):
    day_zip(tmp_path / "plain")
    day_zip(
        tmp_path / "other", trade_rows(1, [t * unit for t in TIMES], header=header, maker=maker)
    )
    assert load_ticks(binance(tmp_path / "other")).trades.equals(
        load_ticks(binance(tmp_path / "plain")).trades
    )


def test_spot_trades_without_header_have_seven_columns(tmp_path):
    text = trade_rows(1, TIMES, header="", maker=("True", "False")).replace("\n", ",True\n")
    day_zip(tmp_path, text)
    assert load_ticks(binance(tmp_path)).trades["side"].to_list() == [-1, 1] * 10


@pytest.mark.parametrize("spot", [False, True])
def test_aggregated_trades(tmp_path, spot):
    rows = [
        f"{i},100.5,0.002,{2 * i},{2 * i + 1},{t},true{',True' * spot}"
        for i, t in enumerate(TIMES, start=1)
    ]
    day_zip(tmp_path, "\n".join([AGG_HEADER] * (not spot) + rows), data_type="aggTrades")
    ticks = load_ticks(binance(tmp_path, trades="aggTrades"))
    assert ticks.trades["id"].to_list() == list(range(1, 21))
    assert ticks.notes["trades_missing_ids"] == 0


def test_quotes_in_time_and_id_order(tmp_path):
    day_zip(tmp_path)
    header, *rows = quote_rows(7, TIMES).splitlines()
    day_zip(tmp_path, "\n".join([header, *rows[::-1]]), data_type="bookTicker")
    ticks = load_ticks(binance(tmp_path, quotes="bookTicker"))
    assert ticks.quotes["seq"].to_list() == list(range(7, 27))
    assert ticks.quotes.row(0) == ((T0 + 5) * MS, T0 * MS, 7, 100.4, 1.0, 100.6, 2.0)
    assert ticks.notes["quotes_unsorted"] == 19


def test_the_path_may_be_root_folder_glob_or_file(tmp_path):
    folder = tmp_path / "data" / "futures" / "um" / "daily" / "trades" / "BTCUSDT"
    path = day_zip(folder)
    for given in (tmp_path, folder, folder / "*.zip", tmp_path / "**" / "*.zip", path):
        assert load_ticks(binance(given)).trades.height == 20


# Days


def test_the_last_milliseconds_of_a_file_belong_to_the_next_day(tmp_path):
    day_zip(tmp_path, trade_rows(1, [MIDNIGHT - 6, MIDNIGHT - 5, MIDNIGHT - 1]))
    day_zip(tmp_path, trade_rows(4, [MIDNIGHT, MIDNIGHT + 9]), day="2023-11-15")
    spec = binance(tmp_path)
    first, second = (spec.read_day(day, {}) for day in spec.days())
    assert (first.trades["id"].to_list(), second.trades["id"].to_list()) == ([1], [2, 3, 4, 5])
    assert first.end == second.start == MIDNIGHT * MS
    assert second.end == second.last_event() + 1


def test_a_day_that_runs_past_midnight_is_complete(tmp_path):
    day_zip(tmp_path, trade_rows(1, [MIDNIGHT - 100, MIDNIGHT - 1]))
    assert load_ticks(binance(tmp_path)).end == MIDNIGHT * MS


def test_a_configured_end_is_kept(tmp_path):
    day_zip(tmp_path)
    assert load_ticks(binance(tmp_path, end="2023-11-15")).end == MIDNIGHT * MS
    assert load_ticks(binance(tmp_path, end="2023-11-14T22:13:21")).trades.height == 10


def test_content_changes_with_neighbours_and_range(tmp_path):
    day_zip(tmp_path)
    spec, day = binance(tmp_path), dt.date(2023, 11, 14)
    alone = spec.content(day)
    assert alone == spec.content(day)
    day_zip(tmp_path, trade_rows(30, [MIDNIGHT + 1]), day="2023-11-15")
    assert spec.content(day) != alone
    assert spec.content(day) == binance(tmp_path, end="2023-11-15").content(
        day
    )  # the day is complete in both
    assert binance(tmp_path, end="2023-11-14T23:00").content(day) != spec.content(day)


# Cleaning


def test_unsorted_and_duplicate_rows(tmp_path):
    rows = trade_rows(1, TIMES).splitlines()
    rows[3], rows[4] = rows[4], rows[3]
    day_zip(tmp_path, "\n".join([*rows, rows[-1], rows[-1]]))
    ticks = load_ticks(binance(tmp_path))
    assert ticks.trades["id"].to_list() == list(range(1, 21))
    assert (ticks.notes["trades_unsorted"], ticks.notes["trades_duplicate"]) == (1, 2)


def test_blanks(tmp_path):
    rows = trade_rows(1, TIMES).splitlines()
    rows[2] = "2,100.5,0.002,0.201,,false"
    rows[5] = f"5,100.5,0.002,0.201,{TIMES[4]},"
    day_zip(tmp_path, "\n".join(rows))
    ticks = load_ticks(binance(tmp_path))
    assert ticks.notes["trades_no_time"] == 1
    assert 2 not in ticks.trades["id"]
    assert ticks.trades["side"][3] == 0
    assert ticks.notes["unknown_side"] == 1


def test_short_holes_in_ids_are_counted_and_long_ones_are_gaps(tmp_path):
    rows = trade_rows(1, TIMES).splitlines()
    late = trade_rows(500, [T0 + 3000]).splitlines()[1:]
    day_zip(tmp_path, "\n".join(rows[:5] + rows[7:] + late))
    ticks = load_ticks(binance(tmp_path))
    assert ticks.notes["trades_missing_ids"] == 2 + 479
    assert ticks.gaps.tolist() == [(T0 + 3005) * MS]


def test_a_missing_day_is_a_gap(tmp_path):
    day_zip(tmp_path, trade_rows(1, TIMES))
    day_zip(tmp_path, trade_rows(21, [MIDNIGHT + 86_400_000 + 7]), day="2023-11-16")
    assert load_ticks(binance(tmp_path)).gaps.tolist() == [(MIDNIGHT + 86_400_012) * MS]


# Bad input


def test_checksum_mismatch(tmp_path):
    path = day_zip(tmp_path)
    spec = binance(tmp_path)
    load_ticks(spec)
    path.with_name(path.name + ".CHECKSUM").write_text(f"{'0' * 64}  {path.name}\n")
    refused(
        spec,
        rf"{DAY}\.zip: sha256 is [0-9a-f]{{64}}, BTCUSDT-trades-{DAY}\.zip\.CHECKSUM says 0000",
    )
    refused(binance(tmp_path, require_checksum=False), "sha256 is")
    with pytest.raises(DataError, match="sha256 is"):
        spec.content(dt.date(2023, 11, 14))
    path.with_name(path.name + ".CHECKSUM").write_text("")
    refused(spec, "says nothing: fetch both files again")


def test_checksum_missing(tmp_path):
    day_zip(tmp_path, checksum=False)
    refused(
        binance(tmp_path), r"CHECKSUM is missing: fetch it too, or set data\.require_checksum=false"
    )
    assert load_ticks(binance(tmp_path, require_checksum=False)).trades.height == 20


@pytest.mark.parametrize("keep", [0, 10, 0.5, -25])
def test_truncated_zip(tmp_path, keep):
    path = day_zip(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    write_checksum(path)
    refused(binance(tmp_path), r"trades-2023-11-14\.zip: truncated or damaged zip")


def test_damaged_bytes_inside_a_zip(tmp_path):
    path = day_zip(tmp_path)
    data = bytearray(path.read_bytes())
    data[120] ^= 0xFF
    path.write_bytes(data)
    write_checksum(path)
    refused(binance(tmp_path), "truncated or damaged zip")


def test_two_members(tmp_path):
    path = day_zip(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", "1,2\n")
    write_checksum(path)
    refused(binance(tmp_path), "must hold one CSV file, holds 2")


@pytest.mark.parametrize(
    "member", ["../evil.csv", "/etc/evil.csv", "a\\evil.csv", "folder/day.csv", "day.exe"]
)
def test_a_member_that_is_no_plain_csv(tmp_path, member):
    day_zip(tmp_path, member=member)
    refused(binance(tmp_path), "its member must be a plain CSV file")


def test_a_zip_bomb_is_not_inflated(tmp_path):
    day_zip(tmp_path, "0" * 10_000_000)
    refused(
        binance(tmp_path),
        "says it inflates .* times to 10,000,000 bytes; market data inflates at most 200 times",
    )


def rows_with(n: int, line: str) -> str:
    rows = trade_rows(1, TIMES).splitlines()
    rows[n - 1] = line
    return "\n".join(rows)


POSITIVE = "must be a finite number > 0, got"
NUMBER = "must be a number, got"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("\n", "holds no rows|unreadable CSV"),
        (trade_rows(1, []), "holds no rows"),
        (
            trade_rows(1, TIMES, header="id,price,size,quote_qty,time,is_buyer_maker"),
            "the header lacks qty, has id, ",
        ),
        (
            trade_rows(1, TIMES, header="").replace(",true", "").replace(",false", ""),
            "has 5 columns and no header",
        ),
        *(
            (rows_with(4, line), match)
            for line, match in [
                ("3,100.5,0.002,0.201,1700000000200,true,9,9", "unreadable CSV"),
                ("3,0.0,0.002,0.201,1700000000200,true", rf"row 4: price {POSITIVE} 0\.0"),
                ("3,-1,0.002,0.201,1700000000200,true", rf"row 4: price {POSITIVE} -1\.0"),
                ("3,NaN,0.002,0.201,1700000000200,true", f"row 4: price {POSITIVE} nan"),
                ("3,100.5,0,0.201,1700000000200,true", rf"row 4: qty {POSITIVE} 0\.0"),
                ("3,,0.002,0.201,1700000000200,true", f"row 4: price {NUMBER} a blank"),
                ("3,1e2x,0.002,0.201,1700000000200,true", f"row 4: price {NUMBER} '1e2x'"),
                ("x,100.5,0.002,0.201,1700000000200,true", f"row 4: id {NUMBER} 'x'"),
                ("3,100.5,0.002,0.201,2023-11-14,true", f"row 4: time {NUMBER} '2023-11-14'"),
                ("3,100.5,0.002,0.201,1700000000,true", "row 4: 1700000000 is no time in ms or us"),
                (
                    "3,100.5,0.002,0.201,1700000000200,buyer",
                    "row 4: is_buyer_maker must be true or false",
                ),
            ]
        ),
    ],
)
def test_bad_rows(tmp_path, text, match):
    day_zip(tmp_path, text)
    refused(binance(tmp_path), rf"BTCUSDT-trades-2023-11-14\.zip.*({match})")


def test_an_empty_member(tmp_path):
    path = tmp_path / f"BTCUSDT-trades-{DAY}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("day.csv", "")
    write_checksum(path)
    refused(binance(tmp_path), r"day\.csv is empty")


def test_missing_files(tmp_path):
    refused(binance(tmp_path / "none"), "no such folder or file")
    refused(binance(tmp_path), "no file in the folder")
    day_zip(tmp_path)
    refused(
        binance(tmp_path, symbol="ETHUSDT"),
        r"matches .*ETHUSDT-\*\.zip: check data\.path and data\.symbol",
    )
    refused(
        binance(tmp_path, trades="aggTrades"),
        r"no daily file BTCUSDT-aggTrades-<date>\.zip .*data\.trades",
    )
    refused(
        binance(tmp_path, quotes="bookTicker"),
        r"no daily file BTCUSDT-bookTicker.*data\.quotes=none",
    )
    day_zip(tmp_path, quote_rows(1, [MIDNIGHT]), data_type="bookTicker", day="2023-11-15")
    refused(
        binance(tmp_path, quotes="bookTicker"), r"BTCUSDT-bookTicker-2023-11-14\.zip is missing"
    )


def test_one_day_in_two_markets(tmp_path):
    day_zip(tmp_path / "spot")
    day_zip(tmp_path / "um")
    refused(binance(tmp_path), "are the same day: narrow data.path to one market")


def test_crossed_quotes(tmp_path):
    day_zip(tmp_path)
    day_zip(tmp_path, quote_rows(1, TIMES).replace("100.4", "100.7"), data_type="bookTicker")
    refused(binance(tmp_path, quotes="bookTicker"), "20 of 20 rows of quotes have bid >= ask")


def test_a_range_outside_the_data(tmp_path):
    day_zip(tmp_path)
    refused(binance(tmp_path, start="2023-11-15"), r"data\.start: 2023-11-15 lies outside the data")
    refused(binance(tmp_path, end="2023-11-17"), r"data\.end: 2023-11-17 lies outside the data")
    refused(binance(tmp_path, start="2023-11-14T23:00"), "no trades between")


# Real days


def test_archive_and_recorder_tell_the_same_story():
    vendor = load_ticks(binance(shared("vendor", "binance"), quotes="bookTicker"))
    capture = load_ticks(recorder(shared("binance_ws", "btcusdt_2024*"), book_levels=0))
    for name in ("trades", "quotes"):
        ours, theirs = (getattr(ticks, name).drop("ts_recv") for ticks in (vendor, capture))
        assert ours.equals(theirs)
    assert vendor.notes["trades_missing_ids"] == vendor.notes["quotes_unsorted"] == 0


def test_aggregated_trades_keep_volume_and_sides():
    trades = load_ticks(binance(shared("vendor", "binance"))).trades
    agg = load_ticks(binance(shared("vendor", "binance"), trades="aggTrades"))
    assert agg.notes["trades_missing_ids"] == 0
    for side in (-1, 1):
        one, other = (t.filter(t["side"] == side)["qty"].sum() for t in (trades, agg.trades))
        assert one == pytest.approx(other, rel=1e-9)
