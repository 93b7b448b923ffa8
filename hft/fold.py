"""One fold with one seed: fitted, calibrated, its strategy learnt on `tune`, scored on `tune` and `select`.

In: the frames of everything before the end of validation, a Split, a seed. Out: metrics and predictions, and in the
run's `fold-<f>/seed-<s>/` the weights, the strategy, the baseline, `metrics.json` and `predictions.parquet`. A folder
that has its metrics is finished: a resumed run reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hft.cache import Cache
from hft.classification import classification_metrics, log_loss_excess
from hft.config import TrainConfig
from hft.dataset import Dataset, hide_rows, to_dataset, usable
from hft.execution import ExecutionSpec, fit_strategy, simulate
from hft.labels import Exits, label_bars, label_report, restrict, train_weights
from hft.model import Classifier, fit_classifier
from hft.report import net_bps_day
from hft.review import review_fold
from hft.run import Run
from hft.schema import CLASS_NAMES, PREDICTIONS, check, metric, money_metric
from hft.splits import ROLES, Block, Split, check_rows, inside
from hft.stages import Market, market_features, market_labels
from hft.tables import print_fit
from hft.tracking import Tracker
from hft.training import FitResult, fit, predict

SCORED = ("tune", "select")  # what training looks at besides train


@dataclass(frozen=True)
class Frames:
    """One row per bar in each. `bars` also hold the features that labels read, `offered_T3` the classes on offer."""

    market: Market
    bars: pl.DataFrame
    labels: pl.DataFrame
    dataset: Dataset
    exits: Exits
    offered_T3: np.ndarray

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


def build_frames(config: TrainConfig, market: Market) -> Frames:
    cache = Cache(Path(config.paths.cache))
    features = market_features(market, config.features, cache)
    labels = market_labels(market, features, config.labels, cache)
    bars = label_bars(market.bars, features, config.labels)
    dataset = to_dataset(market.bars, features, labels)
    return Frames(market, bars, labels, dataset, config.labels.exits(bars), config.labels.offered(bars))


def make_unit(config: TrainConfig, frames: Frames, split: Split, seed: int) -> Unit:
    """Raises SplitError where a role has too few rows."""
    dataset = hide_rows(frames.dataset, split.seen(frames.bars))
    usable_T = usable(dataset, config.model.receptive_field)
    check_rows(split, frames.bars, frames.labels, usable_T, roles=("train", *SCORED))
    role_T = split.role_T(frames.bars, frames.labels)
    of_train = role_T == ROLES.index("train")
    weights = train_weights(frames.labels, frames.bars, config.labels, rows_T=of_train)
    dataset = replace(dataset, w_T=np.where(of_train, weights, dataset.w_T).astype(np.float32))
    return Unit(split, seed, dataset, role_T, usable_T)


def fit_unit(
    config: TrainConfig, frames: Frames, unit: Unit, run: Run, tracker: Tracker, *, prefix: str
) -> tuple[dict[str, float], pl.DataFrame]:
    """Metrics and predictions; goes on from what a kill left of an earlier attempt. Curves are named under `prefix`."""
    fold, seed = unit.split.fold, unit.seed
    if (finished := run.read_unit(fold, seed)) is not None:
        return finished
    x_NF = unit.dataset.x_TF[unit.rows("train")]
    classifier = fit_classifier(config.model, config.transforms, x_NF, seed=seed)
    result = fit(
        classifier,
        unit.dataset,
        unit.role_T,
        loss=config.loss,
        optim=config.optim,
        trainer=config.trainer,
        seed=seed,
        folder=run.fold_folder(fold, seed),
        on_epoch=_on_epoch(config, frames, unit, classifier, tracker, prefix),
        resume=True,
    )
    p_T3 = frames.forecast(predict(classifier, unit.dataset, device=config.trainer.scoring_device()))
    prior_C = result.class_counts / result.class_counts.sum()
    fitted = _fit_strategy(config, frames, unit.split, p_T3)
    run.write_strategy(fold, seed, fitted)
    prior_T3 = _priors(frames, unit)
    metrics = _class_metrics(config, unit, p_T3, prior_T3) | _money_metrics(config, frames, unit.split, p_T3, fitted)
    metrics |= _baseline_metrics(config, frames, unit, run, prior_T3) | _label_metrics(config, frames, unit)
    metrics |= _training_metrics(result)
    review_fold(tracker, classifier, unit.dataset, {r: unit.rows(r) for r in SCORED}, p_T3, prior_C, prefix=prefix)
    print_fit(metrics, name=unit.name, strategy=fitted["reason"])
    predictions = _predictions(frames, unit, p_T3)
    run.write_unit(fold, seed, metrics, predictions)
    return metrics, predictions


def trade(
    config: TrainConfig,
    frames: Frames,
    fold: int,
    block: Block,
    p_T3: np.ndarray,
    fitted: dict[str, Any],
    *,
    execution: ExecutionSpec,
) -> pl.DataFrame:
    """LEDGER of acting on the forecasts of one block of time; nothing at or after its end is read."""
    return simulate(
        np.where(inside(frames.bars, [block])[:, None], p_T3, np.nan),
        frames.market.ticks,
        frames.bars,
        frames.exits,
        strategy=config.strategy,
        fitted=fitted,
        execution=execution,
        until=block[1],
        fold=fold,
    )


def _on_epoch(
    config: TrainConfig, frames: Frames, unit: Unit, classifier: Classifier, tracker: Tracker, prefix: str
) -> Callable[[int, dict[str, float]], bool]:
    """Curves to the tracker and, every `money_every` epochs, what `select` would earn at the objective's fees."""

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        if config.money_every and (epoch + 1) % config.money_every == 0:
            p_T3 = frames.forecast(predict(classifier, unit.dataset, device=config.trainer.scoring_device()))
            fitted = _fit_strategy(config, frames, unit.split, p_T3)
            money = _money_metrics(config, frames, unit.split, p_T3, fitted)
            schedule = config.objective.partition("@")[2] or config.strategy.schedule
            metrics = metrics | {name: money[name] for name in (money_metric("select", schedule), "select/trades")}
        tracker.epoch({f"{prefix}{name}": value for name, value in metrics.items()}, epoch)
        return False

    return on_epoch


def _fit_strategy(config: TrainConfig, frames: Frames, split: Split, p_T3: np.ndarray) -> dict[str, Any]:
    return fit_strategy(
        p_T3,
        split.rows("tune", frames.bars),
        frames.market.ticks,
        frames.bars,
        frames.exits,
        strategy=config.strategy,
        execution=config.execution,
        schedule=config.fees[config.strategy.schedule],
        until=split.hull("tune")[1],
    )


def _priors(frames: Frames, unit: Unit) -> np.ndarray:
    """float64[T, 3]: what a forecast knows from the classes on offer alone, their shares among the training rows with
    the same offer. Against the shares of all rows, a meta label's side alone would look like skill."""
    offer_T = frames.offered_T3 @ (1 << np.arange(len(CLASS_NAMES)))
    rows_T = unit.rows("train") & (unit.dataset.w_T > 0)
    counts_OC = np.zeros((1 << len(CLASS_NAMES), len(CLASS_NAMES)))
    np.add.at(counts_OC, (offer_T[rows_T], unit.dataset.y_T[rows_T]), 1)
    counts_OC = np.where(counts_OC.any(axis=1, keepdims=True), counts_OC, counts_OC.sum(axis=0))
    return frames.forecast((counts_OC / counts_OC.sum(axis=1, keepdims=True))[offer_T])


def _class_metrics(config: TrainConfig, unit: Unit, p_T3: np.ndarray, prior_T3: np.ndarray) -> dict[str, float]:
    """Calibrated, per split; `log_loss_excess` is against the training rows' class frequencies, with its interval."""
    metrics: dict[str, float] = {}
    for role in SCORED:
        rows_T = unit.rows(role) & ~np.isnan(p_T3).any(axis=1)
        p_N3, y_N, prior_C = p_T3[rows_T], unit.dataset.y_T[rows_T], prior_T3[rows_T]
        excess = log_loss_excess(p_N3, y_N, prior_C=prior_C, seed=unit.seed, min_block=2 * config.labels.horizon)
        values = classification_metrics(p_N3, y_N, prior_C=prior_C) | {
            "log_loss_excess": excess.mean,
            "log_loss_excess_low": excess.low,
            "log_loss_excess_high": excess.high,
            "rows": len(y_N),
        }
        metrics |= {metric(role, name): value for name, value in values.items()}
    return metrics


def _money_metrics(
    config: TrainConfig, frames: Frames, split: Split, p_T3: np.ndarray, fitted: dict[str, Any]
) -> dict[str, float]:
    """Net bps per calendar day of `select` under every schedule, through the simulator that backtest.py uses."""
    start, end = split.hull("select")
    blocks = split.periods["select"]
    ledger = pl.concat(trade(config, frames, split.fold, b, p_T3, fitted, execution=config.execution) for b in blocks)
    money = {
        money_metric("select", name): net_bps_day(ledger, schedule, start, end, min_trades=config.min_trades)
        for name, schedule in config.fees.items()
    }
    return money | {metric("select", "trades"): len(ledger)}


def _baseline_metrics(
    config: TrainConfig, frames: Frames, unit: Unit, run: Run, prior_T3: np.ndarray
) -> dict[str, float]:
    """The same class metrics of the baseline, fitted on the same rows; none without one."""
    folder = run.fold_folder(unit.split.fold, unit.seed)
    baseline = config.baseline.fit(unit.dataset, unit.rows("train"), unit.rows("tune"), seed=unit.seed, folder=folder)
    if baseline is None:
        return {}
    values = _class_metrics(config, unit, frames.forecast(baseline.predict(unit.dataset)), prior_T3)
    return {f"baseline/{name}": value for name, value in values.items() if "majority" not in name}


def _label_metrics(config: TrainConfig, frames: Frames, unit: Unit) -> dict[str, float]:
    report = label_report(
        frames.market.ticks,
        frames.bars,
        frames.labels,
        config.labels,
        rows_T=unit.rows("train"),
        period_T=unit.split.rows("train", frames.bars),
        seed=unit.seed,
    )
    return {f"labels/{name}": value for name, value in report.items()}


def _training_metrics(result: FitResult) -> dict[str, float]:
    return {
        "train/examples_per_s": result.examples_per_s,
        "train/best_epoch": result.best_epoch,
        "train/epochs": len(result.history),
        metric("train", "loss"): result.history[-1][metric("train", "loss")],
    }


def _predictions(frames: Frames, unit: Unit, p_T3: np.ndarray) -> pl.DataFrame:
    fold, seed = unit.split.fold, unit.seed
    parts = [
        to_predictions(frames, unit.split.periods[role], p_T3, fold=fold, seed=seed, split=role, path=0)
        for role in SCORED
    ]
    return check(pl.concat(parts), PREDICTIONS, where="predictions")


def to_predictions(frames: Frames, blocks: Sequence[Block], p_T3: np.ndarray, **constants: int | str) -> pl.DataFrame:
    """PREDICTIONS of the bars in `blocks` that have a forecast; `constants` are its fold, seed, split and path."""
    rows_T = inside(frames.bars, blocks) & ~np.isnan(p_T3).any(axis=1)
    columns = {"bar": frames.dataset.bar_T[rows_T], "ts": frames.dataset.ts_T[rows_T]}
    probabilities = {f"p_{name}": p_T3[rows_T, c] for c, name in enumerate(CLASS_NAMES)}
    frame = pl.DataFrame(columns | probabilities).with_columns(pl.lit(v).alias(k) for k, v in constants.items())
    return frame.select(*PREDICTIONS).cast(PREDICTIONS)
