"""For the controls of the research: one market through the real rooms, to losses and trades on
select.

In: overrides on top of SETTINGS, a seed, and what a control does to the dataset. Out: a Control, or
what it comes to over seeds (Evidence). To add a control: a function seed, folder, overrides ->
Control beside the others here.

Barriers have a constant width here (the floor, far above `width` sigmas). Where the EWMA scales
them, hold is predictable on any market: an estimate that happens to be low gives near barriers.
That is skill in the estimate's own error, not in the market, and it would fail a null control that
has nothing to answer for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset.features import build_tick_columns
from hft.dataset.rows import Dataset, usable
from hft.dataset.splits import ROLES, Split, make_periods
from hft.dataset.stages import Market, build_market
from hft.learning.classifier import fit_classifier
from hft.learning.fit import fit, predict
from hft.market.bars import build_bars
from hft.market.data.synthetic import latent_drift
from hft.market.ticks import Ticks
from hft.report.scorecard import Scorecard, score
from hft.runs.frames import Frames, build_frames
from hft.schema import BUY, HOLD, SELL
from hft.statistics.bootstrap import Interval, mean_interval
from hft.statistics.classes import log_losses
from hft.system.cache import Cache
from hft.trading.execution import fit_strategy, simulate
from tests.random_market import random_ticks

# Bars of 2.5 s and 25 s ahead, where a price of 0.9 bps per sqrt second moves 4.5 bps: one sigma to
# either barrier.
SETTINGS = (
    "bars=tick", "bars.size=30", "labels.horizon=10", "labels.width=0.001", "labels.floor_bps=4.5",
    "splits.train=0.45", "splits.tune=0.2", "splits.select=0.3", "splits.test=0.05",
    "loss=cross_entropy", "trainer.chunk=128", "trainer.batch_chunks=4", "trainer.threads=1",
    "trainer.progress=false", "logger=none",
    # Not a dear schedule: it would leave the fewest trades allowed, and no power.
    "strategy.schedule=maker_free",
)  # fmt: skip
LINEAR = ("model=linear", "model.window=5")
SE_TCN = ("model=se_tcn", "model.channels=16", "model.levels=3", "model.se_window=8")
FEE = "binance_usdm_vip0"  # what the nets of a control pay
MIRROR = np.array([HOLD, SELL, BUY])

Meddle = Callable[
    [Dataset, np.ndarray], Dataset
]  # dataset, role_T -> what training and prediction see


@dataclasses.dataclass(frozen=True)
class Control:
    """One seed's market and forecasts. Legend: T bars, N scored rows of select, C classes."""

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

    def rows(self, *roles: str) -> np.ndarray:
        return np.isin(self.role_T, [ROLES.index(role) for role in roles])

    def loss_N(self) -> np.ndarray:
        return log_losses(self.p_T3[self.scored_T], self.y_N)

    def prior_loss_N(self) -> np.ndarray:
        return -np.log(self.prior_C[self.y_N])

    @cached_property
    def fitted(self) -> dict[str, Any]:
        config, market = self.config, self.frames.market
        return fit_strategy(
            self.p_T3,
            self.split.rows("tune", market.bars),
            market.ticks,
            market.bars,
            self.frames.exits,
            strategy=config.strategy,
            execution=config.execution,
            schedule=config.fees[config.strategy.schedule],
            until=self.split.hull("tune")[1],
        )

    def ledger(self, *, shift: int = 0) -> pl.DataFrame:
        """Trades on select of the strategy fitted on tune; `shift` turns its forecasts against its
        market (bars).
        """
        market, config = self.frames.market, self.config
        within_T = self.split.rows("select", market.bars)
        p_T3 = np.where(within_T[:, None], self.p_T3, np.nan)
        p_T3[within_T] = np.roll(p_T3[within_T], shift, axis=0)
        return simulate(
            p_T3,
            market.ticks,
            market.bars,
            self.frames.exits,
            strategy=config.strategy,
            fitted=self.fitted,
            execution=config.execution,
            until=self.split.hull("select")[1],
            fold=0,
        )

    def scorecard(self, ledger: pl.DataFrame) -> Scorecard:
        return score(ledger, self.config.fees, *self.split.hull("select"), seed=self.config.seed)

    def spread_bps(self) -> float:
        """The quoted spread of select, mean over time: what a round trip at a random moment
        pays.
        """
        start, end = self.split.hull("select")
        quotes = self.frames.market.ticks.quotes.filter(
            pl.col("ts_recv").is_between(start, end, closed="left")
        )
        bid, ask = quotes["bid"].to_numpy(), quotes["ask"].to_numpy()
        held = np.diff(quotes["ts_recv"].to_numpy(), append=end)
        return float(np.average((ask - bid) / (ask + bid) * 2e4, weights=held))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a control keeps of one seed, or of several one after the other; all else of a market is
    let go.
    """

    excess_N: np.ndarray  # loss above that of the class frequencies, per row
    surprise_N: np.ndarray  # gross bps above minus the spread, per trade
    horizon: int
    psr_net: tuple[float | None, ...]  # one per seed; None where the period is too short for one
    psr_gross: tuple[float | None, ...]

    @property
    def excess(self) -> Interval:
        return mean_interval(self.excess_N, seed=0, min_block=2 * self.horizon)

    @property
    def surprise_z(self) -> float:
        return float(self.surprise_N.sum() / np.sqrt((self.surprise_N**2).sum()))


def evidence(control: Control) -> Evidence:
    ledger = control.ledger()
    card = control.scorecard(ledger)
    return Evidence(
        control.loss_N() - control.prior_loss_N(),
        ledger["gross_bps"].to_numpy() + control.spread_bps(),
        control.config.labels.horizon,
        (card.schedules[FEE].psr,),
        (card.schedules["maker_free"].psr,),
    )


def pool(seeds: list[Evidence]) -> Evidence:
    return Evidence(
        np.concatenate([s.excess_N for s in seeds]),
        np.concatenate([s.surprise_N for s in seeds]),
        seeds[0].horizon,
        sum((s.psr_net for s in seeds), ()),
        sum((s.psr_gross for s in seeds), ()),
    )


# The path


def config_of(*overrides: str, seed: int, folder: Path) -> TrainConfig:
    paths = (f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}")
    return make_config(TrainConfig, [*SETTINGS, f"seed={seed}", *overrides, *paths])


def run_control(config: TrainConfig, market: Market, meddle: Meddle | None = None) -> Control:
    """Trains on `market`; the labels of select stay true, whatever `meddle` shows to training."""
    (split,) = make_periods(market.ticks.start, market.ticks.end, config.splits)
    frames = build_frames(config, market.before(split.hull("select")[1]))
    role_T = split.role_T(frames.market.bars, frames.labels)
    seen = meddle(frames.dataset, role_T) if meddle else frames.dataset
    train_T = (role_T == ROLES.index("train")) & usable(seen, config.model.receptive_field)
    classifier = fit_classifier(
        config.model, config.transforms, seen.x_TF[train_T], seed=config.seed
    )
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
    return Control(
        config, frames, split, role_T, p_T3, result.class_counts / result.class_counts.sum()
    )


def synthetic(
    alpha: float, seed: int, folder: Path, *overrides: str, meddle: Meddle | None = None
) -> Control:
    """The shipped book; `data.seed` is another market, not only other weights."""
    config = config_of(
        f"data.alpha={alpha}", f"data.seed={seed}", *overrides, seed=seed, folder=folder
    )
    market = build_market(
        config.data, config.bars, config.features, Cache(Path(config.paths.cache))
    )
    return run_control(config, market, meddle)


def random_walk(seed: int, folder: Path, *overrides: str, meddle: Meddle | None = None) -> Control:
    """20 sparse days of a Gaussian walk beside random flow and quotes: select has the days that a
    Sharpe ratio asks.

    300 prints of 0.33 bps each make one sigma of 5.8 bps.
    """
    config = config_of("labels.floor_bps=5.8", *overrides, seed=seed, folder=folder)
    ticks = random_ticks(seed, n_trades=8640, n_days=20)
    return run_control(config, market_of(ticks, config, name=f"random walk {seed}"), meddle)


def market_of(ticks: Ticks, config: TrainConfig, *, name: str) -> Market:
    """Of ticks that no data spec offers; `name` tells them apart in the cache."""
    bars = build_bars(ticks, config.bars)
    columns = build_tick_columns(ticks, bars, config.features)
    return Market(ticks, bars, columns, bar_keys=(name,), column_keys=(name,))


# What a control does to the data


def shuffle_labels(dataset: Dataset, role_T: np.ndarray) -> Dataset:
    """The labels of train, and those of tune, in another order: nothing is left to learn."""
    y_T, rng = dataset.y_T.copy(), np.random.default_rng(0)
    for role in ("train", "tune"):
        rows = role_T == ROLES.index(role)
        y_T[rows] = rng.permutation(y_T[rows])
    return dataclasses.replace(dataset, y_T=y_T)


def leak_next_bar(dataset: Dataset, role_T: np.ndarray) -> Dataset:
    """One feature of the next bar, as a shift by a row in the wrong direction would give it."""
    x_TF, at = dataset.x_TF.copy(), dataset.names.index("log_return")
    x_TF[:-1, at] = x_TF[1:, at]
    return dataclasses.replace(dataset, x_TF=x_TF)


# The oracle: a multinomial logit of cubic polynomials in the latent m, fitted on its mirror images
# too (m -> -m swaps buy and sell, the market is symmetric by construction). Constant barriers leave
# m as all there is to know: what is left, the spread of the moment and the place of the last print,
# is half a tick against barriers of 270.


def latent_T(control: Control) -> np.ndarray:
    """The latent m as each bar closes."""
    drift, ts_T = latent_drift(control.config.data), control.frames.dataset.ts_T
    return drift["m"].to_numpy()[
        np.searchsorted(drift["ts_recv"].to_numpy(), ts_T, side="right") - 1
    ]


def fit_oracle(controls: list[Control]) -> torch.Tensor:
    """Coefficients [4, C] from all rows before select of all seeds."""
    known = [(latent_T(c), c.frames.dataset.y_T, c.rows("train", "tune")) for c in controls]
    m = np.concatenate([m_T[rows] for m_T, _, rows in known])
    y = np.concatenate([y_T[rows] for _, y_T, rows in known])
    x, target = _powers(np.r_[m, -m]), torch.from_numpy(np.r_[y, MIRROR[y]])
    coefficients = torch.zeros(x.shape[1], 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([coefficients], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ coefficients, target)
        loss.backward()
        return loss

    optimiser.step(closure)
    return coefficients.detach()


def oracle_loss_N(control: Control, coefficients: torch.Tensor) -> np.ndarray:
    """On the same rows of select as the control's own loss."""
    logits = _powers(latent_T(control)[control.scored_T]) @ coefficients
    return log_losses(logits.softmax(-1).numpy(), control.y_N)


def _powers(m: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([m**k / (1, 1, 2, 6)[k] for k in range(4)], axis=1))
