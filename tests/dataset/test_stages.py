"""Days built apart, cached and joined are the whole range built at once, for every kind of bar."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hft.clock import to_ns
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset import days
from hft.dataset.days import DayStage, run_all
from hft.dataset.features import build_features, build_tick_columns
from hft.dataset.labels import build_labels
from hft.dataset.stages import build_market, market_features, market_labels
from hft.market.bars import BarError, build_bars, join_bars
from hft.market.data import load_ticks
from hft.market.data.synthetic import Synthetic
from hft.market.ticks import DataError, cut_ticks
from hft.spec import PACKAGE, Room, UserError
from hft.system.cache import Cache
from tests.dataset.tiny_stage import build_tiny, fail

# Four UTC days, the outer ones an hour each, at a trade per five seconds.
DAYS = (
    "data.start=2024-01-01T23:00",
    "data.end=2024-01-04T01:00",
    "data.trades_per_s=0.2",
    "data.limits_per_s=1",
    "data.book_interval_ms=60000",
)
SIZES = {
    "tick": 20,
    "time": 60,
    "volume": 1,
    "dollar": 5e4,
    "volume_adaptive": 60,
    "dollar_adaptive": 60,
}


def market_config(*overrides):
    return make_config(TrainConfig, ["experiment=smoke", *DAYS, *overrides])


def bar_config(kind):
    history = ["bars.history_hours=3"] if kind.endswith("adaptive") else []
    return market_config(f"bars={kind}", f"bars.size={SIZES[kind]}", *history)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Holds the ticks and what the smoke experiment's own bars lead to."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days.os, "cpu_count", lambda: 1)
        build(market_config(), cache)
    return cache


@pytest.fixture(scope="module")
def ticks():
    return load_ticks(market_config().data)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """One processor, so that no pool is started: its workers would compile for longer than all the
    tests take.
    """
    monkeypatch.setattr(days.os, "cpu_count", lambda: 1)


@pytest.fixture
def written(monkeypatch):
    built = []
    write = Cache._write

    def counted(cache, folder, *arguments):
        built.append(folder.parent.name)
        return write(cache, folder, *arguments)

    monkeypatch.setattr(Cache, "_write", counted)
    return built


def labels_of(market, config, cache):
    features = market_features(market, config.features, cache)
    return market_labels(market, features, config.labels, cache)


def build(config, cache):
    return build_market(config.data, config.bars, config.features, cache)


def tiny_stages(cache, builder):
    modules = ("hft.schema",)
    return [
        DayStage(cache, "tiny", None, modules, content=n, build=builder, inputs=(n,))
        for n in range(4)
    ]


def test_several_days_are_built_in_a_pool(tmp_path, monkeypatch, written):
    monkeypatch.setattr(days.os, "cpu_count", lambda: 2)
    todo = tiny_stages(Cache(tmp_path), build_tiny)
    entries = run_all(todo)
    assert [entry.frame("numbers")["n"].item() for entry in entries] == [0, 1, 2, 3]
    assert written == []
    assert os.getpid() not in {entry.meta["worker"] for entry in entries}
    # Nothing is missing now, so no pool is started and nothing is built.
    assert [e.meta for e in run_all(todo)] == [e.meta for e in entries]


def test_a_failure_in_a_worker_is_the_users_message(tmp_path, monkeypatch):
    monkeypatch.setattr(days.os, "cpu_count", lambda: 2)
    with pytest.raises(UserError, match=r"day \d is broken: mend it"):
        run_all(tiny_stages(Cache(tmp_path), fail))
    assert not list(tmp_path.glob("tiny/*/meta.json"))


@pytest.mark.slow
def test_a_pool_builds_what_one_process_builds(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(days.os, "cpu_count", lambda: 2)
    config = bar_config("dollar_adaptive")
    market = build(config, Cache(tmp_path))
    monkeypatch.setattr(days.os, "cpu_count", lambda: 1)
    other = build(config, cache)
    assert market.bar_keys == other.bar_keys
    assert_frame_equal(market.bars, other.bars)
    assert_frame_equal(market.tick_columns, other.tick_columns)


def test_cached_ticks_are_the_loaded_ones(cache, ticks):
    joined = build(market_config(), cache).ticks
    for name in ("trades", "quotes", "book"):
        assert_frame_equal(getattr(joined, name), getattr(ticks, name))
    assert (joined.start, joined.end, joined.notes) == (ticks.start, ticks.end, ticks.notes)
    assert np.array_equal(joined.gaps, ticks.gaps)


@pytest.mark.parametrize("kind", Room("hft.market.bars").names())
def test_days_apart_are_the_whole_range(cache, ticks, kind):
    config = bar_config(kind)
    market = build(config, cache)
    bars = build_bars(ticks, config.bars)
    assert len(bars) > 100
    assert_frame_equal(market.bars, bars)
    columns = build_tick_columns(ticks, bars, config.features)
    assert_frame_equal(market.tick_columns.drop("bar"), columns.drop("bar"))
    features = build_features(bars, market.tick_columns, config.features)
    assert_frame_equal(market_features(market, config.features, cache), features)
    assert_frame_equal(labels_of(market, config, cache), build_labels(ticks, bars, config.labels))


def test_more_days_leave_the_old_ones_alone(cache, written):
    build(market_config("data.end=2024-01-05"), cache)
    # One day is new: it was cut short before, and so it was another.
    assert sorted(written) == ["bars", "columns", "ticks"]


def test_an_adaptive_day_depends_on_the_hours_it_looks_back_to(cache, written):
    build(bar_config("volume_adaptive"), cache)
    written.clear()
    build(bar_config("volume_adaptive"), cache)
    assert written == []
    longer = market_config("bars=volume_adaptive", "bars.size=60", "bars.history_hours=4")
    build(longer, cache)
    assert sorted(set(written)) == ["bars", "columns"]


def test_only_tick_level_features_are_kept_per_day(cache, written):
    build(market_config(), cache)
    config = market_config("features.realised_volatility.window=33")
    market = build(config, cache)
    assert written == []
    market_features(market, config.features, cache)
    assert written == ["features"]


def test_a_width_is_the_labels_own(cache, written):
    config = market_config("labels.width=1.25")
    market = build(config, cache)
    market_features(market, config.features, cache)
    written.clear()
    labels_of(market, config, cache)
    assert written == ["labels"]


def test_before_knows_nothing_of_what_comes_after(cache):
    config = market_config()
    market = build(config, cache)
    end = int(market.bars["ts"][len(market.bars) // 2])
    known = market.before(end)
    assert known.bars["ts"].max() < end
    assert len(known.tick_columns) == len(known.bars)
    assert all(stream["ts_recv"].max() < end for stream in known.ticks.streams())
    assert known.ticks.end == end
    assert set(known.bar_keys) != set(market.bar_keys)
    # Labels that needed a later print are unknown, all others are the same.
    whole, part = (labels_of(m, config, cache) for m in (market, known))
    part = part.filter(pl.col("y").is_not_null())
    assert_frame_equal(whole.join(part.select("bar"), on="bar", how="semi"), part)
    assert len(known.bars) - config.labels.horizon - 5 < part["bar"].max() < len(known.bars)


def test_silence_between_days_starts_a_segment(tmp_path, ticks, monkeypatch):
    """The hour after the first midnight is missing: no day's own bars can tell, only their join."""
    midnight, resumed = to_ns("2024-01-02"), to_ns("2024-01-02T01:00")
    read_day = Synthetic.read_day

    def holed(spec, day, calibration):
        whole = read_day(spec, day, calibration)
        if day.day != 2:
            return whole
        return replace(cut_ticks(whole, resumed, whole.end), start=whole.start)

    monkeypatch.setattr(Synthetic, "read_day", holed)
    config = market_config("data.end=2024-01-02T02:00")
    market = build(config, Cache(tmp_path))
    expected = join_bars(
        [build_bars(cut_ticks(ticks, ticks.start, midnight), config.bars),
         build_bars(cut_ticks(ticks, resumed, to_ns("2024-01-02T02:00")), config.bars)],
        [True],
    )  # fmt: skip
    assert market.bars["segment"].unique().to_list() == [0, 1]
    assert_frame_equal(market.bars, expected)
    assert len(market.ticks.gaps) == 1


def test_a_damaged_entry_is_built_again_and_said(cache, caplog):
    config = market_config()
    good = build(config, cache).bars
    damaged = sorted((cache.root / "ticks").glob("*/trades.parquet"))[0]
    data = damaged.read_bytes()
    for bad in (data[: len(data) // 2], data[:100] + b"\0" * 50 + data[150:], b""):
        damaged.write_bytes(bad)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert_frame_equal(build(config, cache).bars, good)
        assert "is corrupt" in caplog.text
        assert "building it again" in caplog.text
        assert str(damaged.parent) in caplog.text
        assert damaged.read_bytes() == data


def test_no_trades_in_the_period(tmp_path, monkeypatch):
    read_day = Synthetic.read_day

    def quiet(spec, day, calibration):
        ticks = read_day(spec, day, calibration)
        return replace(ticks, trades=ticks.trades.clear())

    monkeypatch.setattr(Synthetic, "read_day", quiet)
    with pytest.raises(
        DataError, match=r"no trades between 2024-01-01T23:00:00Z and .*: check data\.start"
    ):
        build(market_config("data.end=2024-01-02"), Cache(tmp_path))


@pytest.mark.parametrize("kind", ["tick", "volume", "dollar"])
def test_a_threshold_that_gives_no_bar(cache, kind):
    config = market_config(f"bars={kind}", "bars.size=1000000000")
    with pytest.raises(
        BarError, match=r"bars\.size=.* gives no bar: the data hold .* in all; try bars\.size="
    ):
        build(config, cache)


ORPHANED = """
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from hft.system.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    # Its output ends when the last process that holds it does.
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
