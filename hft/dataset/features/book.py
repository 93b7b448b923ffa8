"""The order book beyond the best quotes: how several levels lean, and the order flow at each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.features import FeatureSpec, Windowed, within_segments
from hft.dataset.features._quotes import day_begins, flow_per_bar
from hft.market.ticks import Ticks


class DepthImbalance(FeatureSpec):
    """(Qb - Qa) / (Qb + Qa) over the best `levels` levels of each side at the close, in [-1, 1]."""

    needs: ClassVar[frozenset[str]] = frozenset({"book"})
    tick_fields: ClassVar[tuple[str, ...]] = ("levels",)

    kind: Literal["depth_imbalance"]
    levels: int = Field(ge=1, le=1000, description="levels a side, best first")

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        return {self._tick_column: self._at_close(ticks.book, bars)}

    def lacks_data(self, frame: pl.DataFrame) -> bool:
        return frame[self._tick_column].is_null().all()

    def column(self, frame: pl.DataFrame) -> pl.Series:
        return frame[self._tick_column]

    def _at_close(self, book: pl.DataFrame, bars: pl.DataFrame) -> np.ndarray:
        imbalance = np.full(bars.height, np.nan)
        if f"bid_{self.levels - 1}" not in book.columns:
            return imbalance  # null everywhere, which lacks_data tells the user
        ts_recv = book["ts_recv"].to_numpy()
        # Strictly before the close, which comes first at a tie (docs/definitions.md 5.1).
        last = np.searchsorted(ts_recv, bars["ts"].to_numpy()) - 1
        # Not a book of the day before: that day may not be loaded.
        known = last >= day_begins(ts_recv, bars)
        # Rows first, levels then: there are far more book rows than closes.
        at_close = book[last[known]]
        bid, ask = (_total(at_close, side, self.levels) for side in ("bid", "ask"))
        imbalance[known] = (bid - ask) / (bid + ask)
        return imbalance

    @property
    def _tick_column(self) -> str:
        # The depth is in the name, because specs of several depths stand in one frame.
        return f"depth_imbalance_{self.levels}"


class MultilevelOfi(Windowed):
    """OFI at each of `levels` (Xu, Gould and Howison 2019), averaged over them, in units of their
    mean depth.

    One level per column gives the MLOFI vector; several levels in one column weigh equally. The
    first book of a day adds no flow.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"book"})
    tick_fields: ClassVar[tuple[str, ...]] = ("levels",)

    kind: Literal["multilevel_ofi"]
    levels: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        min_length=1, description="levels to average over, 1 being the best quotes"
    )

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {}
        for level in self.levels:
            k = level - 1
            # Unknown everywhere when the book has no such level, which lacks_data tells the user.
            flow = depth = np.full(bars.height, np.nan)
            if f"bid_{k}" in ticks.book.columns:
                names = (f"bid_{k}", f"bid_qty_{k}", f"ask_{k}", f"ask_qty_{k}")
                flow, depth = flow_per_bar(ticks.book, names, bars)
            columns |= {f"ofi_level_{level}": flow, f"ofi_depth_level_{level}": depth}
        return columns

    def lacks_data(self, frame: pl.DataFrame) -> bool:
        # One level that the data lack makes the whole average null.
        return any(frame[f"ofi_level_{level}"].is_null().all() for level in self.levels)

    def column(self, frame: pl.DataFrame) -> pl.Series:
        # Sums stand for means, because the number of levels cancels in flow / depth. A null is
        # kept: left out, an unknown level would count as one without flow.
        flow = pl.sum_horizontal([f"ofi_level_{k}" for k in self.levels], ignore_nulls=False)
        depth = pl.sum_horizontal([f"ofi_depth_level_{k}" for k in self.levels], ignore_nulls=False)
        total = flow.rolling_sum(self.window, min_samples=self.window)
        return within_segments(
            frame, total / depth.rolling_mean(self.window, min_samples=self.window)
        )


def _total(book: pl.DataFrame, side: str, levels: int) -> np.ndarray:
    """Quantity on the best levels of a side; a level that the book lacks counts 0."""
    total = np.zeros(book.height)
    for k in range(levels):
        total += book[f"{side}_qty_{k}"].fill_null(0).to_numpy()
    return total
