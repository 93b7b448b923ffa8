"""Order book beyond the best quotes: how several levels lean, and the flow of orders at each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.dataset.features import FeatureSpec, Windowed, within_segments
from hft.dataset.features._quotes import day_begins, flow_per_bar
from hft.market.ticks import Ticks


class DepthImbalance(FeatureSpec):
    """(Qb - Qa) / (Qb + Qa) of the quantities on the best `levels` levels at the close, in [-1,
    1].
    """

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
            return imbalance
        ts_recv = book["ts_recv"].to_numpy()
        last = np.searchsorted(ts_recv, bars["ts"].to_numpy()) - 1
        known = last >= day_begins(ts_recv, bars)
        at_close = book[last[known]]
        bid, ask = (
            sum(at_close[f"{side}_qty_{k}"].fill_null(0) for k in range(self.levels))
            for side in ("bid", "ask")
        )
        imbalance[known] = ((bid - ask) / (bid + ask)).to_numpy()
        return imbalance

    @property
    def _tick_column(self) -> str:
        return f"depth_imbalance_{self.levels}"


class MultilevelOfi(Windowed):
    """OFI computed at each of `levels` (Xu, Gould and Howison 2019), averaged over them, in units
    of their mean depth.

    One level per column gives the MLOFI vector; several in one column weigh equally. The first book
    of a day adds none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"book"})
    tick_fields: ClassVar[tuple[str, ...]] = ("levels",)

    kind: Literal["multilevel_ofi"]
    levels: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        min_length=1, description="levels to average over, 1 being the best quotes"
    )

    def tick_columns(self, ticks: Ticks, bars: pl.DataFrame) -> dict[str, np.ndarray]:
        columns = {}
        for level in self.levels:
            names = tuple(f"{name}_{level - 1}" for name in ("bid", "bid_qty", "ask", "ask_qty"))
            unknown = np.full(bars.height, np.nan)
            known = names[0] in ticks.book.columns
            flow, depth = flow_per_bar(ticks.book, names, bars) if known else (unknown, unknown)
            columns |= {f"ofi_level_{level}": flow, f"ofi_depth_level_{level}": depth}
        return columns

    def lacks_data(self, frame: pl.DataFrame) -> bool:
        return any(frame[f"ofi_level_{level}"].is_null().all() for level in self.levels)

    def column(self, frame: pl.DataFrame) -> pl.Series:
        flow = pl.sum_horizontal([f"ofi_level_{k}" for k in self.levels], ignore_nulls=False)
        depth = pl.sum_horizontal([f"ofi_depth_level_{k}" for k in self.levels], ignore_nulls=False)
        total = flow.rolling_sum(self.window, min_samples=self.window)
        return within_segments(
            frame, total / depth.rolling_mean(self.window, min_samples=self.window)
        )
