"""The cached path from files to frames: ticks, bars and tick columns per UTC day, features and
labels over the range.

In: the specs of the first rooms. Out: a Market and its frames. Days that are not in the cache are
built in a pool of processes; a sweep over model settings finds everything here, one over a barrier
width rebuilds labels only. A worker keeps its last market: reading a day of two million events from
the cache takes 0.3 s, asking for its keys 2 ms.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import polars as pl

from hft.dataset.features import FeatureSpec, build_features, build_tick_columns, tick_plan
from hft.dataset.labels import LabelSpec, build_labels, label_bars
from hft.market.bars import BarSpec, build_bars, hourly_totals, join_bars, require_bars
from hft.market.data import DataSpec
from hft.market.ticks import Ticks, cut_ticks, join_ticks, parted_by_gap
from hft.spec import fingerprint
from hft.system.cache import Cache, Entry
from hft.system.processes import end_with_parent

STREAMS = ("trades", "quotes", "book")
# Where the files lie and which days are asked for do not change what one day holds; `content` says
# what does.
NOT_IDENTITY = ("path", "start", "end")
T = TypeVar("T")


class Last:
    """The value that was asked for last, by its key: what trials one after the other share, and
    nobody may change.
    """

    def __init__(self) -> None:
        self.key, self.value = "", None

    def get(self, key: str, build: Callable[[], T]) -> T:
        if self.key != key:
            self.key, self.value = (
                "",
                None,
            )  # before the next is built: two markets may not fit into the memory
            self.value = build()
            self.key = key
        return self.value


@dataclass(frozen=True)
class Market:
    """Ticks and bars of one range, the raw tick columns of each bar (a row per bar), and the keys
    of their days.
    """

    ticks: Ticks
    bars: pl.DataFrame
    tick_columns: pl.DataFrame
    bar_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    last_frames: Last = field(
        default_factory=Last, compare=False, repr=False
    )  # gone with the market

    def before(self, end: int) -> Market:
        """What was known before `end` ns: no tick at or after it, no bar known at or after it."""
        known = self.bars["ts"] < end
        return Market(
            ticks=cut_ticks(self.ticks, self.ticks.start, end),
            bars=self.bars.filter(known),
            tick_columns=self.tick_columns.filter(known),
            bar_keys=(*self.bar_keys, f"before {end}"),
            column_keys=(*self.column_keys, f"before {end}"),
            last_frames=self.last_frames,
        )


@dataclass(frozen=True)
class DayStage:
    """One cached step of one UTC day. All of it can be sent to a worker process, its parents being
    stages too.
    """

    cache: Cache
    name: str
    spec: Any
    modules: tuple[str, ...]
    content: Any
    build: Callable[..., tuple[dict[str, pl.DataFrame], dict[str, Any]]]
    inputs: tuple[Any, ...]

    @property
    def identity(self) -> dict[str, Any]:
        parents = [i.key for i in self.inputs if isinstance(i, DayStage)]
        return {
            "spec": self.spec,
            "module": self.modules,
            "parents": parents,
            "content": self.content,
        }

    @property
    def key(self) -> str:
        return self.cache.key(self.name, **self.identity)

    def run(self) -> Entry:
        return self.cache.stage(self.name, **self.identity, build=lambda: self.build(*self.inputs))


def build_market(
    data: DataSpec,
    bars: BarSpec,
    features: dict[str, FeatureSpec],
    cache: Cache,
    *,
    last: Last | None = None,
) -> Market:
    """Loads or builds every day of `data`, unless `last` has the market of just these files and
    specs.

    Raises DataError where the files are wrong, or give no trade or no bar.
    """
    calibration = data.calibrate()
    tick_stages = [_tick_stage(data, day, calibration, cache) for day in data.days()]
    days = [
        stage.key for stage in tick_stages
    ]  # looks at the files: a market of other files is another one
    kinds = [type(spec).__module__ for spec in (bars, *features.values())]
    key = fingerprint([str(cache.root.resolve()), days, bars.plain(), tick_plan(features), kinds])
    return (last or Last()).get(key, lambda: _load_market(data, bars, features, tick_stages, cache))


def _load_market(
    data: DataSpec,
    bars: BarSpec,
    features: dict[str, FeatureSpec],
    tick_stages: list[DayStage],
    cache: Cache,
) -> Market:
    days = [_to_ticks(entry) for entry in run_all(tick_stages)]
    joined = join_ticks(days, data.gap_s)
    histories = _histories(bars, days)
    bar_stages = [
        _bar_stage(bars, *inputs, cache) for inputs in zip(tick_stages, histories, strict=True)
    ]
    column_stages = [
        _column_stage(features, *inputs, cache)
        for inputs in zip(tick_stages, bar_stages, strict=True)
    ]
    columns = run_all(column_stages)  # a worker that lacks the day's bars builds them first
    joined_bars = _join_days([stage.run().frame("bars") for stage in bar_stages], days, data.gap_s)
    return Market(
        ticks=joined,
        bars=require_bars(joined_bars, bars, sum(bars.available(day) for day in days)),
        tick_columns=pl.concat([entry.frame("columns") for entry in columns]),
        bar_keys=tuple(stage.key for stage in bar_stages),
        column_keys=tuple(stage.key for stage in column_stages),
    )


def market_features(market: Market, specs: dict[str, FeatureSpec], cache: Cache) -> pl.DataFrame:
    """FEATURES of every bar of `market`."""
    entry = cache.stage(
        "features",
        **_of_features(specs),
        parents=market.column_keys,
        build=lambda: ({"features": build_features(market.bars, market.tick_columns, specs)}, {}),
    )
    return entry.frame("features")


def market_labels(
    market: Market, features: pl.DataFrame, spec: LabelSpec, cache: Cache
) -> pl.DataFrame:
    """LABELS of every bar of `market`; `features` are its FEATURES, of which a kind may read
    columns.
    """
    bars = label_bars(market.bars, features, spec)
    entry = cache.stage(
        "labels",
        **_of_labels(spec),
        parents=market.bar_keys,
        content=[
            hashlib.sha256(features[name].fill_null(np.nan).to_numpy()).hexdigest()
            for name in spec.columns
        ],
        build=lambda: ({"labels": build_labels(market.ticks, bars, spec)}, {}),
    )
    return entry.frame("labels")


def definition_keys(
    features: dict[str, FeatureSpec], labels: LabelSpec, cache: Cache
) -> tuple[str, str]:
    """Keys of what the features and the labels mean, whatever market they are computed on: their
    numbers, their code and the libraries.
    """
    of_features = cache.key("features", **_of_features(features))
    return of_features, cache.key("labels", **_of_labels(labels))


def _of_features(specs: dict[str, FeatureSpec]) -> dict[str, Any]:
    return {
        "spec": {name: spec.plain() for name, spec in specs.items()},
        "module": ["hft.dataset.features", *(type(s).__module__ for s in specs.values())],
    }


def _of_labels(spec: LabelSpec) -> dict[str, Any]:
    return {"spec": spec.plain(), "module": type(spec).__module__}


def run_all(stages: list[DayStage]) -> list[Entry]:
    """The entries of all days, those not yet in the cache built first, with a progress bar, in a
    pool where it pays.
    """
    missing = [stage for stage in stages if not stage.cache.has(stage.name, stage.key)]
    if missing:
        from rich.console import Console
        from rich.progress import track

        console, name = Console(stderr=True), f"{missing[0].name} of {len(missing)} day(s)"
        for _ in track(_build(missing), name, total=len(missing), console=console, transient=True):
            pass
    return [stage.run() for stage in stages]


def _build(missing: list[DayStage]) -> Iterator[None]:
    """Yields after each day."""
    # A worker imports and compiles for seconds before its first day: two days are faster one after
    # the other, here.
    n_workers = min(len(missing) // 2, os.cpu_count() or 1)
    if n_workers < 2:
        for stage in missing:
            yield _warm(stage)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(
        n_workers, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        for future in as_completed([pool.submit(_warm, stage) for stage in missing]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C only the days in work are waited for


def _warm(stage: DayStage) -> None:
    stage.run()


def _tick_stage(
    data: DataSpec, day: dt.date, calibration: dict[str, Any], cache: Cache
) -> DayStage:
    first, last = day.isoformat(), (day + dt.timedelta(days=1)).isoformat()
    # The configured bounds as far as they cut into this day: asking for more days leaves this one's
    # key alone.
    clip = [data.start if data.start > first else "", data.end if data.end < last else ""]
    return DayStage(
        cache,
        "ticks",
        spec=numbers_of(type(data), data.plain(), without=tuple(Role)),
        modules=(type(data).__module__,),
        content=[first, clip, data.content(day), calibration],
        build=_build_ticks,
        inputs=(data, day, calibration),
    )


def _build_ticks(data: DataSpec, day: dt.date, calibration: dict[str, Any]) -> tuple[dict, dict]:
    t = data.read_day(day, calibration)
    meta = {"start": t.start, "end": t.end, "gaps": t.gaps.tolist(), "notes": t.notes}
    return {name: getattr(t, name) for name in STREAMS}, meta


def _to_ticks(entry: Entry) -> Ticks:
    m = entry.meta
    frames = {name: entry.frame(name) for name in STREAMS}
    return Ticks(
        **frames,
        start=m["start"],
        end=m["end"],
        gaps=np.array(m["gaps"], np.int64),
        notes=m["notes"],
    )


def _histories(spec: BarSpec, days: list[Ticks]) -> list[pl.DataFrame | None]:
    """Per day the hourly totals that it looks back to; None for kinds that look at no other day."""
    if not spec.hours_back:
        return [None] * len(days)
    totals = [hourly_totals(day) for day in days]
    return [
        pl.concat([totals[0].clear(), *totals[:i]]).tail(spec.hours_back) for i in range(len(days))
    ]


def _join_days(frames: list[pl.DataFrame], days: list[Ticks], gap_s: float) -> pl.DataFrame:
    """One run of bars, a new segment where silence lay between two days or after a day's last
    bar.
    """

    def parted(i: int) -> bool:
        unseen = days[i].gaps > (frames[i]["ts"][-1] if frames[i].height else 0)
        return bool(unseen.any()) or parted_by_gap(days[i], days[i + 1], gap_s)

    return join_bars(frames, [parted(i) for i in range(len(days) - 1)])


def _bar_stage(
    spec: BarSpec, ticks: DayStage, history: pl.DataFrame | None, cache: Cache
) -> DayStage:
    return DayStage(
        cache,
        "bars",
        spec=spec.plain(),
        modules=(type(spec).__module__,),
        content=None if history is None else history.to_dict(as_series=False),
        build=_build_bars,
        inputs=(spec, ticks, history),
    )


def _build_bars(spec: BarSpec, ticks: DayStage, history: pl.DataFrame | None) -> tuple[dict, dict]:
    return {"bars": build_bars(_to_ticks(ticks.run()), spec, history, allow_empty=True)}, {}


def _column_stage(
    features: dict[str, FeatureSpec], ticks: DayStage, bars: DayStage, cache: Cache
) -> DayStage:
    return DayStage(
        cache,
        "columns",
        spec=tick_plan(features),
        modules=("hft.dataset.features", *(type(s).__module__ for s in features.values())),
        content=None,
        build=_build_columns,
        inputs=(features, ticks, bars),
    )


def _build_columns(
    features: dict[str, FeatureSpec], ticks: DayStage, bars: DayStage
) -> tuple[dict, dict]:
    columns = build_tick_columns(_to_ticks(ticks.run()), bars.run().frame("bars"), features)
    return {"columns": columns}, {}
