"""The cached path from files to frames: a Market of joined days, features and labels over its
range.

A sweep over model settings finds everything in the cache, one over a barrier's width rebuilds
labels only. A worker keeps its last market: reading a day of two million events from the cache
takes 0.3 s, asking for its keys 2 ms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl

from hft.dataset.days import DayStage, bar_stage, column_stage, run_all, tick_stage, to_ticks
from hft.dataset.features import FeatureSpec, build_features, tick_plan
from hft.dataset.labels import LabelSpec, build_labels, label_bars
from hft.market.bars import BarSpec, hourly_totals, join_bars, require_bars
from hft.market.data import DataSpec
from hft.market.ticks import Ticks, cut_ticks, join_ticks, parted_by_gap
from hft.spec import fingerprint
from hft.system.cache import Cache

T = TypeVar("T")


class Last(Generic[T]):
    """The value that was asked for last, by its key. Trials that run one after the other share it,
    and nobody may change it.
    """

    def __init__(self) -> None:
        self.key = ""
        self.value: T | None = None

    def get(self, key: str, build: Callable[[], T]) -> T:
        if self.value is None or self.key != key:
            # Before the next is built: two markets may not fit into the memory.
            self.value = None
            self.value = build()
            self.key = key
        return self.value


@dataclass(frozen=True)
class Market:
    """Ticks and bars of one range, the tick columns (a row per bar), and the keys of their days."""

    ticks: Ticks
    bars: pl.DataFrame
    tick_columns: pl.DataFrame
    bar_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    # Kept here, so that the frames go with their market.
    last_frames: Last[Any] = field(default_factory=Last, compare=False, repr=False)

    def before(self, end: int) -> Market:
        """What was known before `end` ns: no tick at or after it, no bar known at or after it."""
        known = self.bars["ts"] < end
        return Market(
            ticks=cut_ticks(self.ticks, self.ticks.start, end),
            bars=self.bars.filter(known),
            tick_columns=self.tick_columns.filter(known),
            # Labels near `end` lack their prints and are unknown here, so the cache keeps them
            # apart.
            bar_keys=(*self.bar_keys, f"before {end}"),
            column_keys=(*self.column_keys, f"before {end}"),
            # Shared: each trial cuts its own Market, and the keys above tell the frames apart.
            last_frames=self.last_frames,
        )


def build_market(
    data: DataSpec,
    bars: BarSpec,
    features: dict[str, FeatureSpec],
    cache: Cache,
    *,
    last: Last[Market] | None = None,
) -> Market:
    """The market of `last` where that is of the same files and specs; else every day is loaded or
    built.

    Raises DataError where the files are wrong or hold no trade, BarError where they give no bar.
    """
    calibration = data.calibrate()
    tick_stages = [tick_stage(data, day, calibration, cache) for day in data.days()]
    # These keys look at the files: a market of other files is another one.
    days = [stage.key for stage in tick_stages]
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
    days = [to_ticks(entry) for entry in run_all(tick_stages)]
    # Joined before any bar is built, because join_ticks refuses a range without trades.
    joined = join_ticks(days, data.gap_s)
    histories = _histories(bars, days)
    bar_stages = [
        bar_stage(bars, *inputs, cache) for inputs in zip(tick_stages, histories, strict=True)
    ]
    column_stages = [
        column_stage(features, *inputs, cache)
        for inputs in zip(tick_stages, bar_stages, strict=True)
    ]
    # Not the bars first: a worker that lacks a day's bars builds them on the way to its columns.
    columns = run_all(column_stages)
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
        # These parents suffice: the keys of tick columns hold those of bars and ticks.
        parents=market.column_keys,
        build=lambda: ({"features": build_features(market.bars, market.tick_columns, specs)}, {}),
    )
    return entry.frame("features")


def market_labels(
    market: Market, features: pl.DataFrame, spec: LabelSpec, cache: Cache
) -> pl.DataFrame:
    """LABELS of every bar of `market`. `features` are its FEATURES, of which a kind may read
    columns.
    """
    bars = label_bars(market.bars, features, spec)
    entry = cache.stage(
        "labels",
        **_of_labels(spec),
        parents=market.bar_keys,
        # Keys of bars know nothing of features. Values, not the features' key: a label that
        # reads one column is not rebuilt when another one changes.
        content=[
            hashlib.sha256(features[name].fill_null(np.nan).to_numpy().tobytes()).hexdigest()
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


def _histories(spec: BarSpec, days: list[Ticks]) -> list[pl.DataFrame | None]:
    """Per day the hourly totals that its bars look back to; None for kinds that look at no other
    day.
    """
    if not spec.hours_back:
        return [None] * len(days)
    totals = [hourly_totals(day) for day in days]
    # The empty frame is for the first day, because concat refuses an empty list.
    return [
        pl.concat([totals[0].clear(), *totals[:i]]).tail(spec.hours_back) for i in range(len(days))
    ]


def _join_days(frames: list[pl.DataFrame], days: list[Ticks], gap_s: float) -> pl.DataFrame:
    """Bars of the days as one range, with a new segment where a gap lies between two days or after
    a day's last bar.
    """

    def parted(i: int) -> bool:
        # A gap after a day's last bar is in no segment of that day's own bars.
        unseen = days[i].gaps > (frames[i]["ts"][-1] if frames[i].height else 0)
        return bool(unseen.any()) or parted_by_gap(days[i], days[i + 1], gap_s)

    return join_bars(frames, [parted(i) for i in range(len(days) - 1)])
