"""What every fold of a run is cut from: features, labels and the dataset of one market.

In: a TrainConfig, the market up to the end of validation. Out: Frames, one row per bar in each; per
fold and seed a Unit, with what that fold may see. A market keeps the frames that were asked for
last, and those keep their label reports: trials that share a market build neither again.

Legend: T bars; 3 stands for the classes hold, buy and sell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from hft.config.configs import DataKeys, TrainConfig
from hft.dataset.barriers import Exits
from hft.dataset.labels import label_bars, label_report, restrict, train_weights
from hft.dataset.rows import Dataset, hide_rows, to_dataset, usable
from hft.dataset.splits import ROLES, Block, Split, check_rows, inside
from hft.dataset.stages import Market, definition_keys, market_features, market_labels
from hft.metrics import SCORED
from hft.schema import CLASS_NAMES, PREDICTIONS
from hft.spec import fingerprint
from hft.system.cache import Cache


@dataclass(frozen=True)
class Frames:
    """One row per bar in each. `bars` also hold the features that labels read, `offered_T3` the
    classes on offer.
    """

    market: Market
    bars: pl.DataFrame
    labels: pl.DataFrame
    dataset: Dataset
    exits: Exits
    offered_T3: np.ndarray
    reports: dict[str, dict[str, float]] = field(default_factory=dict, compare=False, repr=False)

    def forecast(self, p_T3: np.ndarray) -> np.ndarray:
        """Probabilities among the classes on offer, nan where there is no decision to take."""
        return restrict(p_T3, self.offered_T3)


@dataclass(frozen=True)
class Unit:
    """A fold's rows for one seed: `dataset` with what this fold may see, and every row's role."""

    split: Split
    seed: int
    dataset: Dataset
    role_T: np.ndarray
    usable_T: np.ndarray

    @property
    def name(self) -> str:
        return f"fold-{self.split.fold}/seed-{self.seed}"

    def rows(self, role: str) -> np.ndarray:
        """bool[T]: labelled rows of the role with R usable bars."""
        return (self.role_T == ROLES.index(role)) & self.usable_T & (self.dataset.y_T >= 0)


def make_keys(config: TrainConfig, market: Market) -> DataKeys:
    """The keys of all that a run on `market` is made of. Features and labels are keyed by what they
    mean: the data that they are computed on are in the keys of the bars.
    """
    cache = Cache(Path(config.paths.cache))
    features, labels = definition_keys(config.features, config.labels, cache)
    span = market.ticks.start, market.ticks.end
    return DataKeys(span=span, bars=market.bar_keys, features=features, labels=labels)


def build_frames(config: TrainConfig, market: Market) -> Frames:
    # A list: the order of the features is that of the columns.
    features = [[name, spec.plain()] for name, spec in config.features.items()]
    # The keys of a market that was cut (`Market.before`) name the cut: frames up to validation are
    # never taken for those of a backtest.
    key = fingerprint([market.bar_keys, market.column_keys, features, config.labels.plain()])
    return market.last_frames.get(key, lambda: _make_frames(config, market))


def _make_frames(config: TrainConfig, market: Market) -> Frames:
    cache = Cache(Path(config.paths.cache))
    features = market_features(market, config.features, cache)
    labels = market_labels(market, features, config.labels, cache)
    bars = label_bars(market.bars, features, config.labels)
    dataset = to_dataset(market.bars, features, labels)
    return Frames(
        market, bars, labels, dataset, config.labels.exits(bars), config.labels.offered(bars)
    )


def make_unit(config: TrainConfig, frames: Frames, split: Split, seed: int) -> Unit:
    """Raises SplitError where a role has too few rows."""
    # With cpcv training goes on behind test rows. Hidden first, those rows end up in no window that
    # `usable` lets pass.
    dataset = hide_rows(frames.dataset, split.seen(frames.bars))
    usable_T = usable(dataset, config.model.receptive_field)
    check_rows(split, frames.bars, frames.labels, usable_T, roles=("train", *SCORED))
    role_T = split.role_T(frames.bars, frames.labels)
    of_train = role_T == ROLES.index("train")
    weights = train_weights(frames.labels, frames.bars, config.labels, rows_T=of_train)
    # Other rows keep their raw weight: `train_weights` has 0 for them, and a fit counts a row of
    # `tune` where its weight is above 0.
    dataset = replace(dataset, w_T=np.where(of_train, weights, dataset.w_T).astype(np.float32))
    return Unit(split, seed, dataset, role_T, usable_T)


def report_labels(config: TrainConfig, frames: Frames, unit: Unit) -> dict[str, float]:
    """What a run logs of its training rows' labels. It takes 0.2 s the first time, most of it for
    the random walk's shares.
    """
    rows_T, period_T = unit.rows("train"), unit.split.rows("train", frames.bars)
    # The rows themselves are the key, because they depend on the model's receptive field too, not
    # on the split alone.
    content = rows_T.tobytes() + period_T.tobytes() + str(unit.seed).encode()
    key = hashlib.sha256(content).hexdigest()
    if key not in frames.reports:
        frames.reports[key] = label_report(
            frames.market.ticks,
            frames.bars,
            frames.labels,
            config.labels,
            rows_T=rows_T,
            period_T=period_T,
            seed=unit.seed,
        )
    return frames.reports[key]


def to_predictions(
    frames: Frames, blocks: Sequence[Block], p_T3: np.ndarray, **constants: int | str
) -> pl.DataFrame:
    """PREDICTIONS of the bars in `blocks` that have a forecast; `constants` are its fold, seed,
    split and path. `y` is null where the data end before the class is known.
    """
    rows_T = inside(frames.bars, blocks) & ~np.isnan(p_T3).any(axis=1)
    columns = {"bar": frames.dataset.bar_T[rows_T], "ts": frames.dataset.ts_T[rows_T]}
    probabilities = {f"p_{name}": p_T3[rows_T, c] for c, name in enumerate(CLASS_NAMES)}
    frame = pl.DataFrame(columns | probabilities).with_columns(
        y=frames.labels["y"].filter(rows_T),
        **{name: pl.lit(value) for name, value in constants.items()},
    )
    # The forecast is float64 and constants are Python's: the contract decides the types on the
    # disk.
    return frame.select(*PREDICTIONS).cast(pl.Schema(PREDICTIONS))
