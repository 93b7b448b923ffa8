"""The stage cache: one computation per key, whole entries or none, keys that change with all that
changes a result.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest

from hft.system import cache as cache_module
from hft.system.cache import Cache, CacheError

FRAME = pl.DataFrame(
    {"bar": [0, 1, 2], "y": [None, 1.5, -2.0]}, schema={"bar": pl.Int64, "y": pl.Float32}
)
EMPTY = pl.DataFrame(schema={"ts": pl.Int64, "side": pl.Int8, "name": pl.String})


class Build:
    """A build function that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"bars": FRAME, "empty": EMPTY}, {"rows": 3, "notes": {"dropped": 1}}


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def ask(cache, build, **changes):
    arguments = {
        "spec": {"size": 1.0},
        "module": "hft.schema",
        "parents": ["a"],
        "content": {"file": "sha"},
    } | changes
    return cache.stage("bars", build=build, **arguments)


def test_second_read_is_a_hit_and_equals_the_first(cache):
    build = Build()
    first, second = ask(cache, build), ask(cache, build)
    assert build.calls == 1
    assert first.key == second.key
    assert list(second.files) == ["bars", "empty"]
    assert second.meta == {"rows": 3, "notes": {"dropped": 1}}
    for entry in (first, second):
        assert entry.frame("bars").equals(FRAME, null_equal=True)
        assert entry.frame("bars").schema == FRAME.schema
        assert entry.frame("empty").schema == EMPTY.schema


def test_nothing_is_left_beside_the_entries(cache):
    entry = ask(cache, Build())
    assert [p.name for p in (cache.root / "bars").iterdir()] == [entry.key]


def test_has_tells_a_hit_without_building(cache):
    build = Build()
    key = cache.key(
        "bars", spec={"size": 1.0}, module="hft.schema", parents=["a"], content={"file": "sha"}
    )
    assert not cache.has("bars", key)
    assert ask(cache, build).key == key
    assert cache.has("bars", key)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"size": 2.0}},
        {"parents": ["b"]},
        {"parents": []},
        {"content": None},
        {"module": "hft.spec"},
    ],
    ids=str,
)
def test_a_changed_part_is_another_key(cache, changes):
    build = Build()
    assert ask(cache, build, **changes).key != ask(cache, build).key
    assert build.calls == 2


def test_the_order_of_spec_fields_and_modules_does_not_count(cache):
    one = cache.key("bars", spec={"a": 1, "b": 2}, module=["hft.spec", "hft.schema"])
    assert one == cache.key("bars", spec={"b": 2, "a": 1}, module=["hft.schema", "hft.spec"])


def test_another_version_of_a_library_is_another_key(cache, monkeypatch):
    before = cache.key("bars", spec={}, module="hft.schema")
    monkeypatch.setattr(cache_module, "_library_versions", lambda: {"polars": "0.1"})
    assert cache.key("bars", spec={}, module="hft.schema") != before


def test_lists_and_removes_entries(cache):
    build = Build()
    one, two = ask(cache, build), ask(cache, build, spec={"size": 2.0})
    found = {entry.folder: entry for entry in cache.stored()}
    assert set(found) == {one.folder, two.folder}
    size = sum(path.stat().st_size for path in one.folder.iterdir())
    assert (found[one.folder].stage, found[one.folder].size) == ("bars", size)
    assert abs(found[one.folder].used - time.time()) < 60
    cache.remove(found[one.folder])
    assert [path.name for path in (cache.root / "bars").iterdir()] == [two.key]
    assert ask(cache, build).key == one.key
    assert build.calls == 3


def test_an_entry_that_is_removed_while_it_is_open_is_built_again(cache):
    build = Build()
    entry = ask(cache, build)
    cache.remove(cache.stored()[0])
    assert entry.frame("bars").equals(FRAME)
    assert build.calls == 2


def test_what_a_killed_writer_left_is_swept_and_a_living_writers_stays(cache):
    folder = ask(cache, Build()).folder
    dead, living = (folder.with_name(f".partial-{c * 64}") for c in "ab")
    dead.mkdir()
    living.mkdir()
    with cache._locked(folder.with_name("b" * 64)):
        living.mkdir()  # taking the lock removed it
        assert [entry.folder for entry in cache.stored()] == [folder]
        cache.sweep_partials()
        assert (dead.exists(), living.exists()) == (False, True)
    assert folder.exists()


def flip_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-9])


def edit_meta(folder: Path):
    text = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(text.replace('"rows": 3', '"rows": 2'))


CORRUPTIONS = {
    "truncated frame": lambda folder: cut(folder / "bars.parquet"),
    "flipped bit": lambda folder: flip_bit(folder / "bars.parquet"),
    "missing frame": lambda folder: (folder / "bars.parquet").unlink(),
    "truncated meta": lambda folder: cut(folder / "meta.json"),
    "other meta": lambda folder: (folder / "meta.json").write_text("[]"),
    "edited meta": edit_meta,
    "empty folder": lambda folder: [p.unlink() for p in folder.iterdir()],
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupt_entry_is_built_again_with_one_warning(cache, caplog, corrupt):
    build = Build()
    corrupt(ask(cache, build).folder)
    entry = ask(cache, build)
    assert entry.frame("bars").equals(FRAME)
    assert entry.meta["rows"] == 3
    assert build.calls == 2
    assert len(caplog.messages) == 1
    assert "is corrupt" in caplog.messages[0]
    assert ask(cache, build).verify().frame("bars").equals(FRAME)
    assert build.calls == 2


def test_corruption_after_the_entry_was_opened_is_noticed(cache, caplog):
    build = Build()
    entry = ask(cache, build)
    flip_bit(entry.folder / "bars.parquet")
    assert entry.frame("bars").equals(FRAME)
    assert entry.frame("bars").equals(FRAME)
    assert build.calls == 2
    assert len(caplog.messages) == 1


def test_a_failed_build_leaves_nothing(cache):
    def fail():
        raise ValueError("no trades")

    with pytest.raises(ValueError, match="no trades"):
        ask(cache, fail)
    assert list((cache.root / "bars").iterdir()) == []


def test_a_failed_write_leaves_nothing(cache, monkeypatch):
    def full(folder, key, frames, meta):
        (folder / "bars.parquet").write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_files", full)
    with pytest.raises(CacheError, match=r"No space left on device.*paths\.cache="):
        ask(cache, Build())
    assert list((cache.root / "bars").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot be written .*paths\.cache=<folder>"):
        ask(Cache(tmp_path / "file" / "cache"), Build())


def test_a_hit_needs_no_write(cache, monkeypatch):
    ask(cache, Build())
    monkeypatch.setattr(Cache, "_locked", None)
    assert ask(cache, None).frame("bars").equals(FRAME)


def _stage_slowly(root, log_folder):
    def build():
        (log_folder / f"{os.getpid()}").touch()
        time.sleep(0.3)
        return {"bars": FRAME}, {}

    entry = Cache(root).stage("bars", spec={}, module="hft.schema", build=build)
    assert entry.frame("bars").equals(FRAME)


def _die_while_writing(root):
    def half(folder, key, frames, meta):
        (folder / "bars.parquet").write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)

    cache_module._write_files = half
    Cache(root).stage("bars", spec={}, module="hft.schema", build=Build())


def test_concurrent_processes_compute_once(tmp_path):
    (tmp_path / "log").mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_stage_slowly, args=(tmp_path / "cache", tmp_path / "log"))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert len(list((tmp_path / "cache" / "bars").iterdir())) == 1


def test_a_killed_writer_blocks_nobody_and_leaves_no_entry(tmp_path):
    worker = multiprocessing.get_context("spawn").Process(
        target=_die_while_writing, args=(tmp_path,)
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    cache = Cache(tmp_path)
    key = cache.key("bars", spec={}, module="hft.schema")
    left = sorted(p.name for p in (tmp_path / "bars").iterdir())
    assert left == sorted([f".lock-{key}", f".partial-{key}"])
    assert not cache.has("bars", key)
    build = Build()
    assert (
        cache.stage("bars", spec={}, module="hft.schema", build=build).frame("bars").equals(FRAME)
    )
    assert build.calls == 1
    assert [p.name for p in (tmp_path / "bars").iterdir()] == [key]
