"""One UTC day at a time: its ticks, bars and tick columns, each read from the cache or built.

In: specs and a day. Out: a DayStage, whose `run` gives the cached Entry. `run_all` builds the days
that the cache lacks in a pool of processes. To cache another step of a day: a function here that
returns a DayStage.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hft.dataset.features import FeatureSpec, build_tick_columns, tick_plan
from hft.market.bars import BarSpec, build_bars
from hft.market.data import DataSpec
from hft.market.ticks import Ticks
from hft.spec import Role, numbers_of
from hft.system.cache import Cache, Entry
from hft.system.processes import end_with_parent

STREAMS = ("trades", "quotes", "book")
Built = tuple[dict[str, pl.DataFrame], dict[str, Any]]  # frames by name, and what goes beside them


@dataclass(frozen=True)
class DayStage:
    """One cached step of one UTC day. It can be sent to a worker process whole, because its parents
    are stages too.
    """

    cache: Cache
    name: str
    spec: Any
    modules: tuple[str, ...]
    content: Any
    # A function at the top of a module: a lambda could not be sent to a worker.
    build: Callable[..., Built]
    inputs: tuple[Any, ...]

    @property
    def identity(self) -> dict[str, Any]:
        # The other inputs are specs and totals, which `spec` and `content` identify.
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


def run_all(stages: list[DayStage]) -> list[Entry]:
    """The entries of all days. Those that the cache lacks are built first, with a progress bar, in
    a pool where that pays.
    """
    missing = [stage for stage in stages if not stage.cache.has(stage.name, stage.key)]
    if missing:
        from rich.console import Console
        from rich.progress import track

        console, name = Console(stderr=True), f"{missing[0].name} of {len(missing)} day(s)"
        for _ in track(_build(missing), name, total=len(missing), console=console, transient=True):
            pass
    return [stage.run() for stage in stages]


def _build(missing: list[DayStage]) -> Iterator[Path]:
    """Yields each day's folder as it is done."""
    # A worker imports for seconds before its first day: two days are faster here, one by one.
    n_workers = min(len(missing) // 2, os.cpu_count() or 1)
    if n_workers < 2:
        for stage in missing:
            yield stage.run().folder
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    # A run that was killed must leave no worker behind that waits for its next day for ever.
    pool = ProcessPoolExecutor(
        n_workers, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        for future in as_completed([pool.submit(_run, stage) for stage in missing]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C only the days in work are waited for


def _run(stage: DayStage) -> Path:
    """Builds a day. Its frames stay on the disk, where the parent reads them."""
    # The path alone: frames would be pickled and sent through a pipe.
    return stage.run().folder


def tick_stage(data: DataSpec, day: dt.date, calibration: dict[str, Any], cache: Cache) -> DayStage:
    first, last = day.isoformat(), (day + dt.timedelta(days=1)).isoformat()
    # The configured bounds as far as they cut into this day, so that asking for more days leaves
    # the key of this one alone.
    clip = [data.start if data.start > first else "", data.end if data.end < last else ""]
    return DayStage(
        cache,
        "ticks",
        # Not in the key: where files lie and how many days are asked for. content() identifies the
        # data.
        spec=numbers_of(type(data), data.plain(), without=tuple(Role)),
        modules=(type(data).__module__,),
        # The calibration is one shift of all times, measured on the first day loaded: another one
        # makes another day (docs/definitions.md 5.2).
        content=[first, clip, data.content(day), calibration],
        build=_build_ticks,
        inputs=(data, day, calibration),
    )


def _build_ticks(data: DataSpec, day: dt.date, calibration: dict[str, Any]) -> Built:
    t = data.read_day(day, calibration)
    meta = {"start": t.start, "end": t.end, "gaps": t.gaps.tolist(), "notes": t.notes}
    return {name: getattr(t, name) for name in STREAMS}, meta


def to_ticks(entry: Entry) -> Ticks:
    m = entry.meta
    return Ticks(
        trades=entry.frame("trades"),
        quotes=entry.frame("quotes"),
        book=entry.frame("book"),
        start=m["start"],
        end=m["end"],
        gaps=np.array(m["gaps"], np.int64),
        notes=m["notes"],
    )


def bar_stage(
    spec: BarSpec, ticks: DayStage, history: pl.DataFrame | None, cache: Cache
) -> DayStage:
    return DayStage(
        cache,
        "bars",
        spec=spec.plain(),
        modules=(type(spec).__module__,),
        # The totals of other days, and not the keys of those days: an adaptive bar depends on
        # nothing else of them.
        content=None if history is None else history.to_dict(as_series=False),
        build=_build_bars,
        inputs=(spec, ticks, history),
    )


def _build_bars(spec: BarSpec, ticks: DayStage, history: pl.DataFrame | None) -> Built:
    # A day without a bar may lie in a range that has some; `require_bars` judges the range.
    return {"bars": build_bars(to_ticks(ticks.run()), spec, history, allow_empty=True)}, {}


def column_stage(
    features: dict[str, FeatureSpec], ticks: DayStage, bars: DayStage, cache: Cache
) -> DayStage:
    return DayStage(
        cache,
        "columns",
        # Not the whole set: a feature's window changes no sum over a bar's ticks.
        spec=tick_plan(features),
        modules=("hft.dataset.features", *(type(s).__module__ for s in features.values())),
        content=None,
        build=_build_columns,
        inputs=(features, ticks, bars),
    )


def _build_columns(features: dict[str, FeatureSpec], ticks: DayStage, bars: DayStage) -> Built:
    columns = build_tick_columns(to_ticks(ticks.run()), bars.run().frame("bars"), features)
    return {"columns": columns}, {}
