"""The whole path on one screen: market -> features, labels -> dataset -> training -> predictions -> ledger -> score.

`train` and `backtest` are what the entry points call. Training reads no market data at or after the end of `select`;
the test period is read by `backtest` alone, which counts its openings.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hft.cache import Cache
from hft.config import BacktestConfig, TrainConfig, print_tree
from hft.data import DataError, to_iso
from hft.dataset import Dataset, to_dataset, usable
from hft.execution import ExecutionSpec, fit_strategy, simulate
from hft.labels import Exits, class_shares, random_walk_shares
from hft.model import fit_classifier, load_classifier
from hft.report import Scorecard, net_bps_day, plot_equity, print_fit, print_scorecard, save_scorecard, score
from hft.runs import Run, create_run, remember_path
from hft.schema import CLASS_NAMES, PREDICTIONS, check, metric, money_metric
from hft.splits import ROLES, Split, check_rows, make_periods
from hft.stages import Market, build_market, market_features, market_labels
from hft.statistics import classification_metrics, confusion, log_loss_excess
from hft.tracking import Tracker, open_tracker
from hft.training import fit, predict

SCORED = ("tune", "select")  # what training looks at besides train


@dataclass(frozen=True)
class Frames:
    """One row per bar in each: the market's bars, their labels, and the arrays a model sees."""

    market: Market
    labels: pl.DataFrame
    dataset: Dataset
    exits: Exits


@dataclass(frozen=True)
class Outcome:
    """What one training came to: the line to paste, and what a sweep compares."""

    run: str
    objective: str
    value: float

    def __str__(self) -> str:
        return f"run={self.run} {self.objective}={self.value:.6g}  next: python backtest.py ckpt={self.run}"


def train(config: TrainConfig) -> Outcome:
    """Trains one run and leaves it in `<paths.runs>/<id>/`; the last line it prints is the one to paste."""
    if config.show_config:
        print_tree(config)
    with create_run(Path(config.paths.runs)) as run:
        market = build_market(config.data, config.bars, config.features, Cache(Path(config.paths.cache)))
        span = (market.ticks.start, market.ticks.end)
        splits = make_periods(*span, config.splits)
        until = max(split.periods["select"][1] for split in splits)
        _write_config(config, run, data_keys={"span": span, "until": until, "bars": market.bar_keys})
        frames = build_frames(config, market.before(until))
        with open_tracker(config.logger, run.id, run.folder, config=config.plain(), tags=config.tags) as tracker:
            tracker.summary({f"data/{name}": value for name, value in market.ticks.notes.items()})
            fits = [_fit_split(config, frames, split, run, tracker) for split in splits]
            metrics = {name: float(np.mean([f[0][name] for f in fits])) for name in fits[0][0]}
            run.write_metrics(metrics)
            run.write_predictions(pl.concat([predictions for _, predictions in fits]))
            tracker.summary(metrics)
    outcome = Outcome(run.id, config.objective, metrics[config.objective])
    sys.stdout.write(f"{outcome}\n")
    return outcome


def backtest(config: BacktestConfig, trained: TrainConfig, run: Run) -> Scorecard:
    """Scores `run` on rows it never saw: its own test period, or all of another market's data."""
    market = build_market(config.data, trained.bars, trained.features, Cache(Path(config.paths.cache)))
    splits, notes = _test_splits(config, trained, market, run)
    opened = run.count_opening("test", config.plain())
    frames = build_frames(trained, market)
    ledger = pl.concat([_trade_split(config, trained, frames, split, run) for split in splits])
    start, end = splits[0].periods["test"][0], splits[-1].periods["test"][1]
    notes = [*config.execution.assumptions(market.ticks), *notes, f"opening {opened} of this run's test period"]
    card = score(ledger, config.fees, start, end, notes=notes, seed=trained.seed)
    folder = run.backtest_folder(config.name)
    save_scorecard(card, ledger, folder)
    title = f"{run.id}: {card.verdict}"
    equity = plot_equity(ledger, config.fees, folder / "equity.png", start=start, end=end, title=title)
    print_scorecard(card, schedule=trained.strategy.schedule)
    _track_backtest(config, run, card, equity)
    sys.stdout.write(f"run={run.id} scorecard={folder / 'scorecard.json'} figure={equity}\n")
    return card


def _write_config(config: TrainConfig, run: Run, *, data_keys: dict[str, Any]) -> None:
    """The run's own account of itself, without the paths of this machine."""
    plain = config.plain()
    plain.pop("paths")
    path = plain["data"].pop("path", None)
    if path is not None:
        remember_path(Path(config.paths.runs), run.id, path)
    run.write_config(plain, data_keys=data_keys)


def build_frames(config: TrainConfig, market: Market) -> Frames:
    cache = Cache(Path(config.paths.cache))
    labels = market_labels(market, config.labels, cache)
    dataset = to_dataset(market.bars, market_features(market, config.features, cache), labels)
    return Frames(market, labels, dataset, config.labels.exits(market.bars))


def _fit_split(
    config: TrainConfig, frames: Frames, split: Split, run: Run, tracker: Tracker
) -> tuple[dict[str, float], pl.DataFrame]:
    """Metrics and predictions of one fold; weights and the fitted strategy go to the run's folder of that fold."""
    market, dataset = frames.market, frames.dataset
    usable_T = usable(dataset, config.model.receptive_field)
    check_rows(split, market.bars, frames.labels, usable_T, roles=("train", *SCORED))
    role_T = split.role_T(market.bars, frames.labels)
    of_train = role_T == ROLES.index("train")
    shares = class_shares(frames.labels.filter(of_train))
    walk = random_walk_shares(market.bars.filter(of_train), config.labels, seed=config.seed)

    classifier = fit_classifier(config.model, config.transforms, dataset.x_TF[of_train & usable_T], seed=config.seed)
    result = fit(
        classifier,
        dataset,
        role_T,
        loss=config.loss,
        optim=config.optim,
        trainer=config.trainer,
        seed=config.seed,
        folder=run.fold_folder(split.fold, config.seed),
        on_epoch=lambda epoch, metrics: bool(tracker.epoch(metrics, epoch)),
    )
    p_T3 = predict(classifier, dataset, device=config.trainer.scoring_device())
    prior_C = result.class_counts / result.class_counts.sum()
    metrics = _class_metrics(config, frames, role_T, p_T3, prior_C)
    fitted = fit_strategy(
        p_T3,
        split.rows("tune", market.bars),
        market.ticks,
        market.bars,
        frames.exits,
        strategy=config.strategy,
        execution=config.execution,
        schedule=config.fees[config.strategy.schedule],
        until=split.periods["tune"][1],
    )
    run.write_strategy(split.fold, config.seed, fitted)
    metrics |= _money_metrics(config, frames, split, p_T3, fitted)
    metrics |= {"train/examples_per_s": result.examples_per_s, "train/best_epoch": result.best_epoch}
    shares = {f"labels/{n}": v for n, v in shares.items()} | {f"labels/random_walk_{n}": v for n, v in walk.items()}
    metrics |= shares
    _track_fit(tracker, frames, role_T, p_T3)
    print_fit(metrics, strategy=fitted["reason"])
    return metrics, _predictions(frames, split, p_T3, seed=config.seed)


def _class_metrics(
    config: TrainConfig, frames: Frames, role_T: np.ndarray, p_T3: np.ndarray, prior_C: np.ndarray
) -> dict[str, float]:
    """Calibrated, per split; `log_loss_excess` is against the training rows' class frequencies, with its interval."""
    metrics = {}
    for role in SCORED:
        rows = (role_T == ROLES.index(role)) & ~np.isnan(p_T3).any(axis=1)
        p_N3, y_N = p_T3[rows], frames.dataset.y_T[rows]
        values = classification_metrics(p_N3, y_N, prior_C=prior_C)
        excess = log_loss_excess(p_N3, y_N, prior_C=prior_C, seed=config.seed, min_block=config.labels.horizon)
        values |= {
            "log_loss_excess": excess.mean,
            "log_loss_excess_low": excess.low,
            "log_loss_excess_high": excess.high,
        }
        metrics |= {metric(role, name): value for name, value in values.items()} | {metric(role, "rows"): len(y_N)}
    return metrics


def _money_metrics(
    config: TrainConfig, frames: Frames, split: Split, p_T3: np.ndarray, fitted: dict[str, Any]
) -> dict[str, float]:
    """Net bps per calendar day of `select` under every schedule, through the simulator that backtest.py uses."""
    start, end = split.periods["select"]
    ledger = _trade(config, frames, split, "select", p_T3, fitted, execution=config.execution)
    money = {
        money_metric("select", name): net_bps_day(ledger, schedule, start, end, min_trades=config.min_trades)
        for name, schedule in config.fees.items()
    }
    return money | {metric("select", "trades"): len(ledger)}


def _trade(
    config: TrainConfig,
    frames: Frames,
    split: Split,
    role: str,
    p_T3: np.ndarray,
    fitted: dict[str, Any],
    *,
    execution: ExecutionSpec,
) -> pl.DataFrame:
    """LEDGER of acting on the predictions of one period; nothing at or after the period's end is read."""
    return simulate(
        np.where(split.rows(role, frames.market.bars)[:, None], p_T3, np.nan),
        frames.market.ticks,
        frames.market.bars,
        frames.exits,
        strategy=config.strategy,
        fitted=fitted,
        execution=execution,
        until=split.periods[role][1],
        fold=split.fold,
    )


def _trade_split(config: BacktestConfig, trained: TrainConfig, frames: Frames, split: Split, run: Run) -> pl.DataFrame:
    classifier = load_classifier(
        run.fold_folder(split.fold, trained.seed) / "weights.safetensors",
        trained.model,
        trained.transforms,
        n_features=len(frames.dataset.names),
    )
    p_T3 = predict(classifier, frames.dataset, device=trained.trainer.scoring_device())
    fitted = run.read_strategy(split.fold, trained.seed)
    return _trade(trained, frames, split, "test", p_T3, fitted, execution=config.execution)


def _test_splits(
    config: BacktestConfig, trained: TrainConfig, market: Market, run: Run
) -> tuple[list[Split], list[str]]:
    """The periods to score, none of which the run was trained on, and what to note about them."""
    known = run.read_about()["data_keys"]
    span, until = tuple(known["span"]), known["until"]
    if config.data.plain() == trained.data.plain():
        changed = tuple(known["bars"]) != market.bar_keys
        notes = ["the data, or the code that makes bars of them, changed since training"] if changed else []
        return make_periods(*span, trained.splits), notes
    start, end = market.ticks.start, market.ticks.end
    if config.data.source() == trained.data.source() and start < until and span[0] < end:
        raise DataError(
            f"data: {to_iso(start)} to {to_iso(end)} holds rows that run {run.id} was trained on ({to_iso(span[0])} to "
            f"{to_iso(until)}); set data.start={to_iso(until)} or later, or leave data=from_run for its test period"
        )
    return [Split(fold=0, periods={"test": (start, end)}, embargo=0)], ["other data than the run's own test period"]


def _predictions(frames: Frames, split: Split, p_T3: np.ndarray, *, seed: int) -> pl.DataFrame:
    parts = []
    for role in SCORED:
        rows = split.rows(role, frames.market.bars) & ~np.isnan(p_T3).any(axis=1)
        columns = {"bar": frames.dataset.bar_T[rows], "ts": frames.dataset.ts_T[rows]}
        constants = {"fold": split.fold, "seed": seed, "split": role, "path": 0}
        probabilities = {f"p_{name}": p_T3[rows, c] for c, name in enumerate(CLASS_NAMES)}
        frame = pl.DataFrame(columns | probabilities).with_columns(pl.lit(v).alias(k) for k, v in constants.items())
        parts.append(frame.select(*PREDICTIONS).cast(PREDICTIONS))
    return check(pl.concat(parts), PREDICTIONS, where="predictions")


def _track_fit(tracker: Tracker, frames: Frames, role_T: np.ndarray, p_T3: np.ndarray) -> None:
    rows = (role_T == ROLES.index("select")) & ~np.isnan(p_T3).any(axis=1)
    counts = confusion(frames.dataset.y_T[rows], p_T3[rows].argmax(axis=1))
    table = pl.DataFrame({"true": CLASS_NAMES} | {f"predicted_{n}": counts[:, c] for c, n in enumerate(CLASS_NAMES)})
    tracker.table("select/confusion", table)


def _track_backtest(config: BacktestConfig, run: Run, card: Scorecard, equity: Path) -> None:
    """The scorecard and its figure, into the same W&B run as the training."""
    job = f"backtest_{config.name}"
    with open_tracker(config.logger, run.id, run.folder, config=config.plain(), tags=config.tags, job=job) as tracker:
        plain = card.plain()
        rows = [{"schedule": name} | values for name, values in plain.pop("schedules").items()]
        tracker.summary({f"{config.name}/{k}": v for k, v in plain.items() if isinstance(v, int | float | str)})
        tracker.table(f"{config.name}/scorecard", pl.DataFrame(rows))
        tracker.figure(f"{config.name}/equity", equity)
