"""Bars and labels of which a split sees only the times."""

from __future__ import annotations

import polars as pl

from hft.schema import LABELS


def bars_at(ts) -> pl.DataFrame:
    return pl.DataFrame({"bar": range(len(ts)), "ts": ts}, schema={"bar": pl.Int64, "ts": pl.Int64})


def labels_of(t_end: list[int | None]) -> pl.DataFrame:
    """Hold labels that end at `t_end`, null where it is None."""
    known = [None if t is None else 0 for t in t_end]
    columns = (range(len(t_end)), known, t_end, known, known)
    return pl.DataFrame(dict(zip(LABELS, columns, strict=True)), schema=LABELS)
