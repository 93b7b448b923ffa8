"""Bars and labels by their times alone, and the paths that folds make up."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from hft.dataset.splits import Block, Split
from hft.schema import LABELS


def bars_at(ts: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame({"bar": range(len(ts)), "ts": ts}, schema={"bar": pl.Int64, "ts": pl.Int64})


def labels_of(t_end: list[int | None]) -> pl.DataFrame:
    """Hold labels that end at `t_end`, null where it is None."""
    known = [None if t is None else 0 for t in t_end]
    columns = (range(len(t_end)), known, t_end, known, known)
    return pl.DataFrame(dict(zip(LABELS, columns, strict=True)), schema=LABELS)


def paths_of(splits: list[Split]) -> list[list[tuple[int, Block]]]:
    """Per path its (fold, test block) pairs in time order."""
    paths: dict[int, list[tuple[int, Block]]] = {}
    for split in splits:
        for path, block in zip(split.paths, split.periods["test"], strict=True):
            paths.setdefault(path, []).append((split.fold, block))
    return [sorted(paths[path], key=lambda part: part[1]) for path in sorted(paths)]
