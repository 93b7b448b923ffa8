"""Shipped feature sets, and two days of the random market with a book, as bars and features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import yaml

from hft.clock import NS_PER_DAY
from hft.dataset.features import FeatureSpec, build_features, build_tick_columns
from hft.market.bars import build_bars
from hft.market.bars.tick import TickBars
from hft.market.ticks import Ticks, cut_ticks
from hft.schema import book_columns
from hft.spec import Room, Spec, parse
from tests.random_market import random_ticks

CONF = Path(__file__).parents[3] / "conf" / "features"
SETS = sorted(path.stem for path in CONF.glob("*.yaml"))
N_LEVELS = 5
BARS = TickBars(kind="tick", size=10)


class _Set(Spec):
    features: Annotated[dict[str, FeatureSpec], Room("hft.dataset.features", families=True)]


def feature_specs(plain: dict) -> dict[str, FeatureSpec]:
    return parse(_Set, {"features": plain}).features


def feature(**plain) -> FeatureSpec:
    return feature_specs({"it": plain})["it"]


def shipped(name: str) -> dict[str, dict]:
    """A set's own entries below those of the sets it includes, as Hydra composes them."""
    plain = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    included = [n for n in plain.pop("defaults", []) if n != "_self_"]
    return {key: entry for n in included for key, entry in shipped(n).items()} | plain


def book_ticks(*, n_days: int = 2, n_trades: int = 3000, seed: int = 0) -> Ticks:
    """The random market with a few unknown sides, a gap in the first day, and five levels behind
    every quote.
    """
    ticks = random_ticks(seed, n_trades=n_trades, n_days=n_days)
    rng = np.random.default_rng(seed + 1)
    columns = {name: ticks.quotes[name].to_numpy() for name in ("ts_recv", "ts_exch", "seq")}
    for k in range(N_LEVELS):
        for name, away in (("bid", -0.1), ("ask", 0.1)):
            columns[f"{name}_{k}"] = np.round(ticks.quotes[name].to_numpy() + away * k, 2)
            columns[f"{name}_qty_{k}"] = np.round(
                rng.lognormal(0, 1, ticks.quotes.height) + 0.001, 3
            )
    contract = book_columns(N_LEVELS)
    unknown = pl.Series(rng.random(ticks.trades.height) < 0.1)
    return dataclasses.replace(
        ticks,
        trades=ticks.trades.with_columns(
            side=pl.when(unknown).then(pl.lit(0, pl.Int8)).otherwise("side")
        ),
        book=pl.DataFrame({name: columns[name] for name in contract}, schema=contract),
        gaps=ticks.trades["ts_recv"].to_numpy()[[n_trades // 2]],
    )


def build(ticks: Ticks, specs: dict[str, FeatureSpec]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars, and features through tick columns of one day at a time."""
    bars = build_bars(ticks, BARS)
    days = [
        build_tick_columns(
            cut_ticks(ticks, start, start + NS_PER_DAY),
            bars.filter((pl.col("ts_open") >= start) & (pl.col("ts_open") < start + NS_PER_DAY)),
            specs,
        )
        for start in range(ticks.start, ticks.end, NS_PER_DAY)
    ]
    return bars, build_features(bars, pl.concat(days), specs)
