"""What every kind of data keeps: columns, order, ranges, days that join, determinism, a YAML of its
own.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from hft.clock import NS_PER_DAY, day_of, day_start
from hft.market.data import DataSpec, load_ticks
from hft.market.ticks import Ticks
from hft.schema import QUOTES, TRADES, book_columns, check
from hft.spec import Room
from tests.market.data.test_recorder import session
from tests.market.data.vendor import MIDNIGHT, quote_rows, trade_rows, write_lines, write_zip

CONF = Path(__file__).parents[3] / "conf" / "data"
KINDS = Room("hft.market.data").names()
TIMES = [MIDNIGHT - 20_000 + 1000 * i for i in range(40)]


def write_recorder(folder: Path) -> dict:
    write_lines(folder / "btcusdt_a.gz", session(MIDNIGHT - 20_000, delay_ms=-1500))
    write_lines(folder / "btcusdt_b.gz", session(MIDNIGHT + 2000, delay_ms=-1500, first_id=20))
    return {"path": str(folder)}


def write_binance(folder: Path) -> dict:
    for data_type, rows in (("trades", trade_rows), ("bookTicker", quote_rows)):
        for day, part, first in (("2023-11-14", TIMES[:20], 1), ("2023-11-15", TIMES[20:], 21)):
            write_zip(folder, data_type, day, rows(first, part))
    return {"path": str(folder)}


def write_synthetic(folder: Path) -> dict:
    return {"start": "2024-01-01T23:59:30", "end": "2024-01-02T00:00:30"}


# A new kind needs a line here: what its spec must say to read two short days, written into the
# folder first.
SAMPLES: dict[str, Callable[[Path], dict]] = {
    "binance": write_binance,
    "recorder": write_recorder,
    "synthetic": write_synthetic,
}


def shipped(kind: str, changes: dict) -> DataSpec:
    plain = OmegaConf.to_container(OmegaConf.load(CONF / f"{kind}.yaml"), resolve=False)
    return Room("hft.market.data").load(kind).model_validate_json(json.dumps(plain | changes))


@pytest.fixture(scope="module", params=KINDS)
def spec(request, tmp_path_factory) -> DataSpec:
    return shipped(request.param, SAMPLES[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def days(spec) -> list[Ticks]:
    return [spec.read_day(day, spec.calibrate()) for day in spec.days()]


def test_every_kind_has_a_yaml_and_a_sample():
    assert sorted(SAMPLES) == KINDS
    for kind in KINDS:
        lines = (CONF / f"{kind}.yaml").read_text().splitlines()
        assert lines[0] == "# yaml-language-server: $schema=../schema/data.json"
        assert f"kind: {kind}" in lines


def test_columns(spec, days):
    for ticks in days:
        check(ticks.trades, TRADES, where="trades")
        check(ticks.quotes, QUOTES, where="quotes")
        check(ticks.book, book_columns(ticks.n_levels()), where="book")
        assert ticks.gaps.dtype == np.int64


def test_order_and_values(days):
    for ticks in days:
        for stream in ticks.streams():
            assert stream["ts_recv"].is_sorted()
            assert (stream["ts_recv"] >= stream["ts_exch"]).all()
        assert ticks.trades["id"].is_sorted()
        assert ticks.trades["side"].is_in([-1, 0, 1]).all()
        assert (ticks.quotes["bid"] < ticks.quotes["ask"]).all()
        for frame, names in (
            (ticks.trades, ("price", "qty")),
            (ticks.quotes, ("bid", "bid_qty", "ask", "ask_qty")),
        ):
            for name in names:
                assert (frame[name].is_finite() & (frame[name] > 0)).all()


def test_each_day_lies_inside_its_range_and_its_day(spec, days):
    assert len(days) == len(spec.days()) == 2
    for day, ticks in zip(spec.days(), days, strict=True):
        assert isinstance(day, dt.date)
        assert day_start(day) <= ticks.start <= ticks.first_event()
        assert ticks.last_event() < ticks.end <= day_start(day) + NS_PER_DAY
    assert days[0].end == days[1].start == day_start(spec.days()[1])
    assert days[0].start > day_start(spec.days()[0])


def test_days_join_into_the_whole(spec, days):
    whole = load_ticks(spec)
    assert (whole.start, whole.end) == (days[0].start, days[1].end)
    for joined, parts in zip(
        whole.streams(), zip(*(d.streams() for d in days), strict=True), strict=True
    ):
        assert joined.equals(pl.concat(parts))
    assert whole.trades["id"].n_unique() == whole.trades.height


def test_reading_again_gives_the_same(spec, days):
    for day, ticks in zip(spec.days(), days, strict=True):
        again = spec.read_day(day, spec.calibrate())
        assert all(a.equals(b) for a, b in zip(again.streams(), ticks.streams(), strict=True))
        assert (again.start, again.end, again.notes) == (ticks.start, ticks.end, ticks.notes)


def test_calibration_content_and_notes_are_json(spec, days):
    contents = [
        json.dumps([spec.content(day), spec.calibrate()], allow_nan=False) for day in spec.days()
    ]
    assert len(set(contents)) == 2
    assert contents == [json.dumps([spec.content(day), spec.calibrate()]) for day in spec.days()]
    json.dumps([ticks.notes for ticks in days], allow_nan=False)


def test_an_earlier_end_changes_no_earlier_tick(spec, days):
    """Causality: a range that ends at the first midnight gives the first day, bit for bit."""
    midnight = day_of(days[0].end).isoformat()
    first = load_ticks(spec.model_copy(update={"end": midnight}))
    assert first.end == days[0].end
    for a, b in zip(first.streams(), days[0].streams(), strict=True):
        assert a.equals(b)
