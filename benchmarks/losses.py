"""Focal loss against cross entropy: forecasts of the default SE-TCN after equally many examples.

No speed: the calibrated log loss of select, on the synthetic market of experiment=demo with all
else as shipped. Both losses get the same initial weights and the same batches, all epochs of them;
tune chooses the epoch and calibrates.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Result
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset.splits import make_periods, reads_until
from hft.dataset.stages import build_market
from hft.learning.classifier import fit_classifier
from hft.learning.fit import fit, predict
from hft.runs.frames import Unit, build_frames, make_unit
from hft.statistics.classes import log_losses
from hft.system.cache import Cache

LOSSES = ("focal", "cross_entropy")
FULL = {"hours": 12, "epochs": 10, "seeds": 3, "overrides": ()}
QUICK = {"hours": 6, "epochs": 2, "seeds": 2, "overrides": ()}


@dataclass(frozen=True)
class Scored:
    """One training: mean log losses over select's rows, in nats.

    `majority` is the log loss of forecasting the class frequencies.
    """

    log_loss: float
    majority: float
    rows: int
    examples: int
    best_epoch: int


def measure(*, hours: int, epochs: int, seeds: int, overrides: tuple[str, ...]) -> Result:
    """Seeds change weights, dropout and batches, but not the market.

    The spread is therefore that of training alone.
    """
    with tempfile.TemporaryDirectory() as name:
        configs = {
            loss: _config(Path(name), loss, hours=hours, epochs=epochs, overrides=overrides)
            for loss in LOSSES
        }
        units = build_units(configs[LOSSES[0]], seeds)
        found = {
            loss: [train(config, unit, Path(name)) for unit in units]
            for loss, config in configs.items()
        }
    seen = {scored.examples for side in found.values() for scored in side}
    if len(seen) > 1:
        raise AssertionError(f"losses: the sides saw different numbers of examples: {sorted(seen)}")
    losses = {loss: [scored.log_loss for scored in side] for loss, side in found.items()}
    first, config = found[LOSSES[0]][0], configs[LOSSES[0]]
    apart = [a - b for a, b in zip(*losses.values(), strict=True)]
    return Result(
        name="losses",
        unit="nats",
        rates={loss: statistics.mean(values) for loss, values in losses.items()},
        spread={loss: statistics.stdev(values) for loss, values in losses.items()},
        data=f"calibrated log loss of select, mean +- sd over {seeds} seeds; synthetic market of "
        f"experiment=demo, {hours} h, {config.model.kind} with R {config.model.receptive_field}, "
        f"{first.examples:,} examples a training; {first.rows:,} rows, class frequencies "
        f"{first.majority:.4f}",
        details={
            "by_seed": {
                loss: [round(value, 5) for value in values] for loss, values in losses.items()
            },
            "first_minus_second_by_seed": [round(value, 5) for value in apart],
            "class_frequencies": round(first.majority, 5),
            "best_epoch": {
                loss: [scored.best_epoch for scored in side] for loss, side in found.items()
            },
        },
    )


def build_units(config: TrainConfig, seeds: int) -> list[Unit]:
    market = build_market(
        config.data, config.bars, config.features, Cache(Path(config.paths.cache))
    )
    splits = make_periods(market.ticks.start, market.ticks.end, config.splits)
    frames = build_frames(config, market.before(reads_until(splits)))
    return [make_unit(config, frames, splits[0], seed) for seed in range(seeds)]


def train(config: TrainConfig, unit: Unit, folder: Path) -> Scored:
    x_NF = unit.dataset.x_TF[unit.rows("train")]
    classifier = fit_classifier(config.model, config.transforms, x_NF, seed=unit.seed)
    result = fit(
        classifier,
        unit.dataset,
        unit.role_T,
        loss=config.loss,
        optim=config.optim,
        trainer=config.trainer,
        seed=unit.seed,
        folder=folder,
        on_epoch=lambda epoch, metrics: False,
    )
    rows_T = unit.rows("select")
    p_N3, y_N = predict(classifier, unit.dataset, device="cpu")[rows_T], unit.dataset.y_T[rows_T]
    prior_C = result.class_counts / result.class_counts.sum()
    return Scored(
        log_loss=float(log_losses(p_N3, y_N).mean()),
        majority=float(log_losses(prior_C[None].repeat(len(y_N), axis=0), y_N).mean()),
        rows=len(y_N),
        examples=len(result.history) * int(result.class_counts.sum()),
        best_epoch=result.best_epoch,
    )


def _config(
    folder: Path, loss: str, *, hours: int, epochs: int, overrides: tuple[str, ...]
) -> TrainConfig:
    settings = (
        "experiment=demo",
        f"loss={loss}",
        f"data.end=2024-01-01T{hours:02d}:00",
        f"trainer.epochs={epochs}",
        f"trainer.patience={epochs}",
        "trainer.progress=false",
        "logger=none",
        f"paths.runs={folder / 'runs'}",
        f"paths.cache={folder / 'cache'}",
    )
    return make_config(TrainConfig, [*settings, *overrides])
