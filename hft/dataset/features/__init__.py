"""Features: FEATURES have one float32 column per entry of a feature set, null where unknown.

They are built in two stages. `build_tick_columns` sums up each bar's ticks, a UTC day at a time,
without any window. `build_features` makes columns of these sums and BARS, over the whole range.
Rolling windows run across midnight, stay inside a `segment`, and are null until they are full. A
value that cannot be computed (no variance in the window, no quote yet) is null too, never nan and
never a stand-in.

To add a feature: one FeatureSpec subclass in the module of its family, an entry in a set under
conf/features, one test with a slow twin or a closed form. The conformance suite covers it at once.
Row i may use nothing later than bars.ts[i].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from hft.market.ticks import Ticks
from hft.schema import BARS, check, features_columns
from hft.spec import Kind, UserError

# Returns and other logs are in basis points, and nothing is annualised: docs/definitions.md 5.10.
BPS = 10_000.0
REMEDIES = {
    "quotes": "choose features=[trades_only]",
    "book": "leave out features=book, or give fewer levels or a source with so many",
}


class FeatureError(UserError):
    """A feature that the data or the set cannot give: the column, the reason, the remedy."""


class FeatureSpec(Kind):
    needs: ClassVar[frozenset[str]] = frozenset()
    """Streams without which the feature is null everywhere: "quotes", "book"."""
    tick_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that change the tick columns. Specs that differ in other fields only (a window) share
    the columns.
    """

    @property
    def warmup(self) -> int:
        """Number of leading bars of a segment that are null."""
        return 0

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        """Per bar what its ticks add up to, float64, nan where unknown. Uses no tick of another UTC
        day.
        """
        return {}

    def lacks_data(self, frame: pl.DataFrame) -> bool:
        """Whether a stream that the feature needs is nowhere in the range."""
        # BARS carry the quotes known at each close: null in every bar means that the source has
        # none.
        return "quotes" in self.needs and frame["bid"].is_null().all()

    def column(self, frame: pl.DataFrame) -> pl.Series:
        """Float64 per bar of the range, from BARS and all tick columns; nan, inf: unknown."""
        raise NotImplementedError


class Windowed(FeatureSpec):
    """A feature over the last `window` bars, this one included."""

    window: int = Field(ge=1, le=100_000, description="bars in the rolling window")

    @property
    def warmup(self) -> int:
        return self.window - 1


class ReturnWindowed(FeatureSpec):
    """A feature over the last `window` returns, which need one bar more."""

    window: int = Field(ge=1, le=100_000, description="returns in the rolling window, in bars")

    @property
    def warmup(self) -> int:
        return self.window


def build_tick_columns(
    ticks: Ticks, bars: pl.DataFrame, specs: dict[str, FeatureSpec]
) -> pl.DataFrame:
    """One row per bar of `bars`: `bar` and every tick column of `specs`, float64, null where
    unknown.
    """
    columns: dict[str, np.ndarray] = {}
    for spec in _distinct(specs):
        # Two specs may share a column (level 1 alone, and levels 1 to 5): the values are the same.
        columns |= spec.tick_columns(ticks, bars)
    # `build_features` puts the tick columns beside those of BARS, where a second `volume` could not
    # stand.
    assert not columns.keys() & BARS.keys(), "a tick column may not shadow a column of BARS"
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))
    # null in place of nan: a polars window counts nulls as missing (`min_samples`) and takes nan
    # for a value.
    return bars.select("bar").hstack(frame.fill_nan(None))


def tick_plan(specs: dict[str, FeatureSpec]) -> list[dict[str, Any]]:
    """What `build_tick_columns` computes, JSON-ready: the same for sets that differ in windows
    only.
    """
    return [
        {"kind": spec.kind} | {f: spec.plain()[f] for f in spec.tick_fields}
        for spec in _distinct(specs)
    ]


def build_features(
    bars: pl.DataFrame, tick_columns: pl.DataFrame, specs: dict[str, FeatureSpec]
) -> pl.DataFrame:
    """FEATURES of a range. `tick_columns` are the frames of its days from `build_tick_columns`, one
    below the other. FeatureError when the data lack a stream that a feature needs.
    """
    if "bar" in specs:
        raise FeatureError(
            "features.bar: 'bar' numbers the rows of every frame; give the feature another name"
        )
    assert tick_columns.height == bars.height, "tick columns and bars must have the same rows"
    frame = bars.hstack(tick_columns.drop("bar"))
    _require_streams(frame, specs)
    columns = [_stored(spec.column(frame)).alias(name) for name, spec in specs.items()]
    return check(
        bars.select("bar").hstack(columns), features_columns(list(specs)), where="features"
    )


def within_segments(frame: pl.DataFrame, value: pl.Expr) -> pl.Series:
    """`value` computed in each segment alone, so that no window and no difference reaches across a
    gap.
    """
    # docs/definitions.md 5.9: a return or a window over hours of silence would be none of this
    # market.
    return frame.select(value.over("segment")).to_series()


def log_return_bps(*, bars: int = 1) -> pl.Expr:
    """Log return of the close over so many bars, in bps; for use inside `within_segments`."""
    return pl.col("close").log().diff(bars) * BPS


def _distinct(specs: dict[str, FeatureSpec]) -> Iterator[FeatureSpec]:
    """One spec per group of specs with the same tick columns, sorted by kind and fields."""
    # A spec that keeps the base's empty method needs nothing of the ticks. In the plan it would
    # only build the days' columns anew.
    with_ticks = [s for s in specs.values() if type(s).tick_columns is not FeatureSpec.tick_columns]
    # Sorted, since the plan is part of a cache key: the order of a set must not change it.
    keyed = {(s.kind, repr([getattr(s, field) for field in s.tick_fields])): s for s in with_ticks}
    return (keyed[key] for key in sorted(keyed))


def _require_streams(frame: pl.DataFrame, specs: dict[str, FeatureSpec]) -> None:
    # A day without quotes gives nulls; a range without any gives columns of nothing but null, with
    # which nothing could be trained.
    # `frame.height`: of no bars all are null, and an empty range would seem to lack every stream.
    lacking = {
        name: spec for name, spec in specs.items() if frame.height and spec.lacks_data(frame)
    }
    errors = []
    # All lacking streams in one message, so that the user mends the set once.
    for stream, remedy in REMEDIES.items():
        names = [name for name, spec in lacking.items() if stream in spec.needs]
        if names:
            verb = "needs" if len(names) == 1 else "need"
            errors.append(
                f"features: {', '.join(names)} {verb} {stream}, which these data do not have; "
                f"{remedy}"
            )
    if errors:
        raise FeatureError("\n".join(errors))


def _stored(values: pl.Series) -> pl.Series:
    # Cast first: what float32 cannot hold becomes inf there, and null here.
    stored = values.cast(pl.Float32)
    return stored.set(~stored.is_finite().fill_null(value=False), None)
