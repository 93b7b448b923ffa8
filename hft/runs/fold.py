"""One fold with one seed: the model fitted and calibrated, its strategy learnt on `tune`, both
scored on `tune` and `select`.

In: the frames of everything before the end of validation, a Split, a seed. Out: metrics and
predictions, and in the run's `fold-<f>/seed-<s>/` the weights, the strategy, the baseline,
`metrics.json` and `predictions.parquet`. A folder that has its metrics is finished: a resumed run
reads it back.

Legend: T bars, N rows, F features, C classes (3 where a forecast has one column each), O sets of
classes on offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from hft.config.configs import TrainConfig
from hft.learning.classifier import Classifier, fit_classifier
from hft.learning.fit import FitResult, fit, predict
from hft.learning.watch import Watched
from hft.metrics import SCORED, lower_is_better, metric, money_metric
from hft.report.review import review_fold
from hft.report.tables import print_fit
from hft.runs.folder import Run
from hft.runs.frames import Frames, Unit, report_labels, to_predictions
from hft.runs.money import daily_returns, earn
from hft.schema import CLASS_NAMES, PREDICTIONS, check
from hft.statistics.classes import classification_metrics, log_loss_excess
from hft.tracking.tracker import Tracker

Metrics = dict[str, float | None]  # None where the rows cannot carry a number


def fit_unit(
    config: TrainConfig,
    frames: Frames,
    unit: Unit,
    run: Run,
    tracker: Tracker,
    watched: Watched,
    *,
    prefix: str,
) -> tuple[Metrics, pl.DataFrame]:
    """Metrics and predictions; goes on from what a kill left of an earlier attempt. Curves are
    logged as `<prefix><metric>`.
    """
    fold, seed = unit.split.fold, unit.seed
    if (finished := run.read_unit(fold, seed)) is not None:
        return finished
    # Transforms are fitted on training rows alone; on all rows a scale would carry the future
    # (docs/definitions.md 4.1).
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
        on_epoch=_on_epoch(config, frames, unit, classifier, tracker, watched, prefix),
        # Without a last.ckpt this trains from the start, so a first attempt needs no call of its
        # own. A trial that is tried again begins with the dead trial's copy.
        resume=True,
    )
    # A kill may have come between the watch's stop and these scores. Then the saved state alone
    # knows that the unit was pruned, and the watch is not asked again.
    watched.pruned |= result.stopped == "callback"
    p_T3 = _forecast(config, frames, unit, classifier)
    prior_C = result.class_counts / result.class_counts.sum()
    money = earn(config, frames, unit.split, p_T3)
    # A backtest reads this back: theta is learnt on `tune` once, and never on the rows it is judged
    # by.
    run.write_strategy(fold, seed, money.fitted)
    prior_T3 = _priors(frames, unit)
    metrics = _class_metrics(config, unit, p_T3, prior_T3) | money.metrics
    metrics |= _baseline_metrics(config, frames, unit, run, prior_T3)
    labels = report_labels(config, frames, unit)
    metrics |= {metric("labels", name): value for name, value in labels.items()}
    metrics |= _training_metrics(result)
    rows = {role: unit.rows(role) for role in SCORED}
    review_fold(tracker, classifier, unit.dataset, rows, p_T3, prior_C, prefix=prefix)
    print_fit(metrics, name=unit.name, strategy=money.fitted["reason"])
    predictions = _predictions(frames, unit, p_T3)
    daily = daily_returns(config, unit.split, money.ledger, seed=seed)
    # Last, because this marks the unit as finished. A kill before it costs the scores once more and
    # loses none of the figures.
    run.write_unit(fold, seed, metrics, predictions, daily)
    return metrics, predictions


def _forecast(
    config: TrainConfig, frames: Frames, unit: Unit, classifier: Classifier
) -> np.ndarray:
    """Calibrated; nan where the unit may not see the bars, or there is no decision to take."""
    device = config.trainer.scoring_device()
    return frames.forecast(predict(classifier, unit.dataset, device=device))


def _on_epoch(
    config: TrainConfig,
    frames: Frames,
    unit: Unit,
    classifier: Classifier,
    tracker: Tracker,
    watched: Watched,
    prefix: str,
) -> Callable[[int, dict[str, float]], bool]:
    """Gives the tracker and the watch the metrics of each epoch. Every `money_every` epochs, and
    after each one where the watch is for money, they include what `select` would earn at the
    objective's fees.
    """
    # An objective in money names its schedule. A class metric names none.
    schedule = config.objective.partition("@")[2] or config.strategy.schedule
    # One schedule of money only: a curve for each of the ladder would bury the others.
    shown = (money_metric("select", schedule), metric("select", "trades"), watched.objective)

    def look(wanted: str, *, money: bool) -> dict[str, float]:
        p_T3 = _forecast(config, frames, unit, classifier)
        found = _scores(unit, "select", p_T3, _priors(frames, unit)) if wanted else {}
        # Classes are asked first. Money costs far more, because the search for theta back-tests
        # `tune` once per threshold.
        if money or (wanted and wanted not in found):
            found |= earn(config, frames, unit.split, p_T3).metrics
        return {name: found[name] for name in shown if name in found}

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        # An objective of `tune` comes with each epoch; one of `select` has to be computed here.
        wanted = watched.objective if watched.of_epochs and watched.objective not in metrics else ""
        due = bool(config.money_every) and (epoch + 1) % config.money_every == 0
        if wanted or due:
            metrics = metrics | look(wanted, money=due)
        tracker.epoch({f"{prefix}{name}": value for name, value in metrics.items()}, epoch)
        return watched.epoch(epoch, metrics)

    return on_epoch


def _priors(frames: Frames, unit: Unit) -> np.ndarray:
    """float64[T, 3]: what a forecast knows from the classes on offer alone, their shares among the
    training rows with the same offer. Against the shares of all rows, a meta label's side alone
    would look like skill.
    """
    # A set of classes as the bits of one number, so that rows can be counted by the set on offer.
    offer_T = frames.offered_T3 @ (1 << np.arange(len(CLASS_NAMES)))
    # The rows that the fit counts (hft/learning/fit.py): a reference must know no more and no less.
    rows_T = unit.rows("train") & (unit.dataset.w_T > 0)
    counts_OC = np.zeros((1 << len(CLASS_NAMES), len(CLASS_NAMES)))
    np.add.at(counts_OC, (offer_T[rows_T], unit.dataset.y_T[rows_T]), 1)
    # An offer that training never had gets the shares of all training rows.
    counts_OC = np.where(counts_OC.any(axis=1, keepdims=True), counts_OC, counts_OC.sum(axis=0))
    return frames.forecast((counts_OC / counts_OC.sum(axis=1, keepdims=True))[offer_T])


def _class_metrics(
    config: TrainConfig, unit: Unit, p_T3: np.ndarray, prior_T3: np.ndarray
) -> Metrics:
    """Calibrated, per split. `log_loss_excess` is against the training rows' class frequencies; its
    interval is None where the rows are too few.
    """
    metrics: Metrics = {}
    for role in SCORED:
        p_N3, y_N, prior_N3 = _rows_of(unit, role, p_T3, prior_T3)
        # Blocks of two horizons, because labels overlap over one: in 400 simulations of a true 0
        # the interval missed it in 8.3 % with blocks of one horizon, in 6.0 % with two, and no less
        # often with more (experiments/LOG.md; docs/definitions.md 5.21).
        excess = log_loss_excess(
            p_N3, y_N, prior_C=prior_N3, seed=unit.seed, min_block=2 * config.labels.horizon
        )
        values: Metrics = {
            "log_loss_excess": excess.mean,
            "log_loss_excess_low": excess.low,
            "log_loss_excess_high": excess.high,
            "rows": len(y_N),
        }
        metrics |= _scores(unit, role, p_T3, prior_T3) | {
            metric(role, name): value for name, value in values.items()
        }
    return metrics


def _scores(unit: Unit, role: str, p_T3: np.ndarray, prior_T3: np.ndarray) -> dict[str, float]:
    p_N3, y_N, prior_N3 = _rows_of(unit, role, p_T3, prior_T3)
    return {
        metric(role, name): v
        for name, v in classification_metrics(p_N3, y_N, prior_C=prior_N3).items()
    }


def _rows_of(
    unit: Unit, role: str, p_T3: np.ndarray, prior_T3: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast, label and prior of the role's labelled rows that have a forecast."""
    rows_T = unit.rows(role) & ~np.isnan(p_T3).any(axis=1)
    return p_T3[rows_T], unit.dataset.y_T[rows_T], prior_T3[rows_T]


def _baseline_metrics(
    config: TrainConfig, frames: Frames, unit: Unit, run: Run, prior_T3: np.ndarray
) -> Metrics:
    """The class metrics of the baseline, fitted on the same rows; none without a baseline."""
    folder = run.fold_folder(unit.split.fold, unit.seed)
    baseline = config.baseline.fit(
        unit.dataset, unit.rows("train"), unit.rows("tune"), seed=unit.seed, folder=folder
    )
    if baseline is None:
        return {}
    # The same classes on offer as the model has: with more of them the baseline would answer
    # another question. The majority's scores are left out, because the model's own metrics hold
    # them.
    values = _class_metrics(config, unit, frames.forecast(baseline.predict(unit.dataset)), prior_T3)
    return {f"baseline/{name}": value for name, value in values.items() if "majority" not in name}


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
        # Path 0: only blocks of test lie on several paths.
        to_predictions(
            frames, unit.split.periods[role], p_T3, fold=fold, seed=seed, split=role, path=0
        )
        for role in SCORED
    ]
    return check(pl.concat(parts), PREDICTIONS, where="predictions")


def over_folds_and_seeds(
    seeds: Sequence[int], metrics: Sequence[Mapping[str, float | None]]
) -> Metrics:
    """A run's metrics from those of its units, each with its seed: the mean over folds, then over
    seeds; None where any unit's is None.

    With several seeds `<name>/sd` (ddof 1) and `<name>/worst` go along, over the seeds' means.
    """
    found: Metrics = {}
    for name in metrics[0]:
        by_seed: dict[int, list[float]] = {}
        for seed, unit in zip(seeds, metrics, strict=True):
            if (value := unit.get(name)) is None:
                # The mean of the units that have a value would compare runs over different rows.
                found[name] = None
                break
            by_seed.setdefault(seed, []).append(value)
        else:
            # Folds first: they are other periods of the market, and only seeds are repetitions.
            # Deviation and worst are therefore those of the seeds (docs/definitions.md 4.10).
            means = np.array([np.mean(values) for values in by_seed.values()])
            found[name] = float(means.mean())
            if len(means) > 1:
                worst = means.max() if lower_is_better(name) else means.min()
                found |= {f"{name}/sd": float(means.std(ddof=1)), f"{name}/worst": float(worst)}
    return found
