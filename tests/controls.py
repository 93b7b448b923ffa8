"""For the null and positive controls of the research: one market through the real rooms, to losses and trades on select.

Barriers have a constant width here (the floor, far above `width` sigmas). Where the EWMA scales them, hold is
predictable on any market: an estimate that happens to be low gives near barriers. That is skill in the estimate's
own error, not in the market, and it would fail a null control that has nothing to answer for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from hft.bars import build_bars
from hft.cache import Cache
from hft.compose import compose, to_plain
from hft.config import TrainConfig
from hft.data import Ticks
from hft.data.synthetic import latent_drift
from hft.dataset import Dataset, usable
from hft.execution import fit_strategy, simulate
from hft.features import build_tick_columns
from hft.model import fit_classifier
from hft.pipeline import Frames, build_frames
from hft.report import Scorecard, score
from hft.schema import BUY, HOLD, SELL
from hft.spec import parse
from hft.splits import ROLES, Split, make_periods
from hft.stages import Market, build_market
from hft.statistics import Interval, log_loss_excess, log_losses, mean_interval
from hft.training import fit, predict

# Bars of 2.5 s and 25 s ahead, where a price of 0.9 bps per sqrt second moves 4.5 bps: one sigma to either barrier.
SETTINGS = (
    "data.end=2024-01-01T06:00", "bars=tick", "bars.size=30", "labels.horizon=10", "labels.width=0.001",
    "labels.floor_bps=4.5", "splits.train=0.45", "splits.tune=0.2", "splits.select=0.3", "splits.test=0.05",
    "loss=cross_entropy", "trainer.threads=1", "trainer.progress=false", "logger=none",
    "strategy.schedule=maker_free",  # a dear schedule would leave the fewest trades allowed, and no power
)  # fmt: skip
LINEAR = ("model=linear", "model.window=5", "trainer.epochs=8", "trainer.patience=3")
SE_TCN = ("model=se_tcn", "model.channels=16", "model.levels=3", "model.se_window=8", "trainer.epochs=8")

Meddle = Callable[[Dataset, np.ndarray], Dataset]  # dataset, role_T -> what training and prediction see


@dataclasses.dataclass(frozen=True)
class Control:
    """What one seed came to, and the questions a control asks of it. Legend: T bars, N rows of select, C classes."""

    config: TrainConfig
    frames: Frames
    split: Split
    role_T: np.ndarray
    p_T3: np.ndarray
    prior_C: np.ndarray  # class frequencies of the training rows

    @cached_property
    def scored_T(self) -> np.ndarray:
        return self.rows("select") & ~np.isnan(self.p_T3).any(axis=1)

    @cached_property
    def y_N(self) -> np.ndarray:
        """The true labels, whatever training was shown."""
        return self.frames.dataset.y_T[self.scored_T]

    def rows(self, role: str) -> np.ndarray:
        return self.role_T == ROLES.index(role)

    def excess(self) -> Interval:
        p_N3, seed, horizon = self.p_T3[self.scored_T], self.config.seed, self.config.labels.horizon
        return log_loss_excess(p_N3, self.y_N, prior_C=self.prior_C, seed=seed, min_block=horizon)

    def loss_N(self) -> np.ndarray:
        return log_losses(self.p_T3[self.scored_T], self.y_N)

    def paired(self, difference_N: np.ndarray) -> Interval:
        return mean_interval(difference_N, seed=self.config.seed, min_block=self.config.labels.horizon)

    def ledger(self, *, shift: int = 0) -> pl.DataFrame:
        """Trades on select of the strategy fitted on tune; `shift` moves the forecasts of select against its market."""
        config, frames, (_, end) = self.config, self.frames, self.split.periods["select"]
        within_T = self.split.rows("select", frames.market.bars)
        p_T3 = np.where(within_T[:, None], self.p_T3, np.nan)
        p_T3[within_T] = np.roll(p_T3[within_T], shift, axis=0)
        return simulate(
            p_T3,
            frames.market.ticks,
            frames.market.bars,
            frames.exits,
            strategy=config.strategy,
            fitted=self.fitted,
            execution=config.execution,
            until=end,
            fold=0,
        )

    @cached_property
    def fitted(self) -> dict:
        config, frames = self.config, self.frames
        return fit_strategy(
            self.p_T3,
            self.split.rows("tune", frames.market.bars),
            frames.market.ticks,
            frames.market.bars,
            frames.exits,
            strategy=config.strategy,
            execution=config.execution,
            schedule=config.fees[config.strategy.schedule],
            until=self.split.periods["tune"][1],
        )

    def scorecard(self, ledger: pl.DataFrame) -> Scorecard:
        return score(ledger, self.config.fees, *self.split.periods["select"], seed=self.config.seed)

    def spread_bps(self) -> float:
        """The mean of select's quoted spread over time, what a round trip pays."""
        start, end = self.split.periods["select"]
        quotes = self.frames.market.ticks.quotes.filter(pl.col("ts_recv").is_between(start, end, closed="left"))
        held = np.diff(quotes["ts_recv"].to_numpy(), append=end)
        spread = quotes.select((pl.col("ask") - pl.col("bid")) / (pl.col("ask") + pl.col("bid")) * 2e4)
        return float(np.average(spread.to_series(), weights=held))


def config_of(*overrides: str, folder: Path) -> TrainConfig:
    paths = (f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}")
    return parse(TrainConfig, to_plain(compose([*SETTINGS, *overrides, *paths])))


def synthetic_control(*overrides: str, alpha: float, seed: int, folder: Path, meddle: Meddle | None = None) -> Control:
    config = config_of(f"data.alpha={alpha}", f"data.seed={seed}", f"seed={seed}", *overrides, folder=folder)
    market = build_market(config.data, config.bars, config.features, Cache(Path(config.paths.cache)))
    return run_control(config, market, meddle)


def market_of(ticks: Ticks, config: TrainConfig, *, name: str) -> Market:
    """Of ticks that no data spec offers; `name` tells them apart in the cache."""
    bars = build_bars(ticks, config.bars)
    columns = build_tick_columns(ticks, bars, config.features)
    return Market(ticks, bars, columns, bar_keys=(name,), column_keys=(name,))


def run_control(config: TrainConfig, market: Market, meddle: Meddle | None = None) -> Control:
    """Trains on `market`; select keeps its true labels, whatever `meddle` shows to training."""
    (split,) = make_periods(market.ticks.start, market.ticks.end, config.splits)
    frames = build_frames(config, market.before(split.periods["select"][1]))
    role_T = split.role_T(frames.market.bars, frames.labels)
    seen = meddle(frames.dataset, role_T) if meddle else frames.dataset
    train_T = (role_T == ROLES.index("train")) & usable(seen, config.model.receptive_field)
    classifier = fit_classifier(config.model, config.transforms, seen.x_TF[train_T], seed=config.seed)
    folder = Path(config.paths.runs)
    folder.mkdir(parents=True, exist_ok=True)
    result = fit(
        classifier,
        seen,
        role_T,
        loss=config.loss,
        optim=config.optim,
        trainer=config.trainer,
        seed=config.seed,
        folder=folder,
        on_epoch=lambda epoch, metrics: False,
    )
    p_T3 = predict(classifier, seen, device="cpu")
    return Control(config, frames, split, role_T, p_T3, result.class_counts / result.class_counts.sum())


def shuffle_labels(dataset: Dataset, role_T: np.ndarray) -> Dataset:
    """The labels of train, and those of tune, in another order: nothing is left to learn."""
    y_T, rng = dataset.y_T.copy(), np.random.default_rng(0)
    for role in ("train", "tune"):
        rows = role_T == ROLES.index(role)
        y_T[rows] = rng.permutation(y_T[rows])
    return dataclasses.replace(dataset, y_T=y_T)


def leak_next_bar(dataset: Dataset, role_T: np.ndarray) -> Dataset:
    """One feature of the next bar, as a shift by a row in the wrong direction would give."""
    x_TF, at = dataset.x_TF.copy(), dataset.names.index("log_return")
    x_TF[:-1, at] = x_TF[1:, at]
    return dataclasses.replace(dataset, x_TF=x_TF)


def latent_N(control: Control) -> np.ndarray:
    """The latent m when each bar closes, of every bar."""
    drift, ts_T = latent_drift(control.config.data), control.frames.dataset.ts_T
    return drift["m"].to_numpy()[np.searchsorted(drift["ts_recv"].to_numpy(), ts_T, side="right") - 1]
