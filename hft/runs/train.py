"""The whole path on one screen: market -> frames -> folds and seeds -> predictions -> ledgers ->
scores.

`train`, `reproduce` and `backtest` are what the entry points call. Training reads no market data at
or after the end of the last fold's validation; test rows are read by `backtest` alone, which counts
their openings.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from hft.config.configs import BacktestConfig, DataKeys, TrainConfig, print_tree
from hft.dataset.splits import Block, Split, make_periods, reads_until
from hft.dataset.stages import Last, build_market
from hft.learning.fit import Interrupted, predict
from hft.learning.model import load_classifier
from hft.learning.watch import Watch, Watched
from hft.metrics import is_timing, metric
from hft.report.scorecard import Scorecard, plot_equity, save_scorecard, save_scorecards, score
from hft.report.tables import print_over_seeds, print_scorecard, print_spread
from hft.runs.fold import fit_unit
from hft.runs.folder import Run, RunError
from hft.runs.frames import Frames, build_frames, make_unit, to_predictions
from hft.runs.jobs import read_data_keys
from hft.runs.money import trade
from hft.runs.openings import Part, rows_to_score
from hft.runs.registry import create_run, remember_path
from hft.statistics.returns import over_folds_and_seeds
from hft.system.cache import Cache
from hft.system.provenance import differences
from hft.tracking.logger import open_tracker
from hft.tracking.tracker import Tracker


@dataclass(frozen=True)
class Outcome:
    """What one training came to: the line to paste, and what a sweep compares."""

    run: str
    objective: str
    value: float
    pruned: bool = False

    def __str__(self) -> str:
        following = (
            "pruned: its best weights are kept"
            if self.pruned
            else f"next: python backtest.py ckpt={self.run}"
        )
        return f"run={self.run} {self.objective}={_shown(self.value)}  {following}"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def train(
    config: TrainConfig,
    *,
    run: Run | None = None,
    resumed: Run | None = None,
    repeated: Run | None = None,
    watch: Watch | None = None,
    group: str = "",
    last: Last | None = None,
) -> Outcome:
    """Trains a run in `<paths.runs>/<id>/`, or goes on with `resumed`; the last line it prints is
    the one to paste.

    With `run`, a new folder or one that another's progress was copied into, it trains there;
    `group` is its trackers', `last` the market of the training before, if it was of the same data.
    A `watch` may end it early: it is then `pruned`, with metrics over the folds and seeds so far.
    With `repeated`, says whether the numbers of that run came out again.
    """
    if config.show_config:
        print_tree(config)
    run = resumed or run or create_run(Path(config.paths.runs))
    with run.working() as work:
        try:
            with _terminable():
                value, pruned = _train(config, run, watch=watch, group=group, last=last)
        except Interrupted:
            if not run.is_trial:
                sys.stderr.write(f"go on with: python train.py resume={run.id}\n")
            raise
        work.ends_as = "pruned" if pruned else "done"
    if repeated is not None:
        _compare(repeated, run)
    outcome = Outcome(run.id, config.objective, value, pruned)
    sys.stdout.write(f"{outcome}\n")
    return outcome


def backtest(config: BacktestConfig, trained: TrainConfig, run: Run) -> Scorecard:
    """Scores a run on rows it never saw: its own test period, the locked final one, or all of
    another market's data.

    Every seed, and with cpcv every path, is a series of its own: the card is that of the middle one
    by net return at the strategy's schedule, and their spread is printed beside it.
    """
    market = build_market(
        config.data, trained.bars, trained.features, Cache(Path(config.paths.cache))
    )
    parts, until, notes = rows_to_score(config, trained, market, run)
    frames = build_frames(trained, market.before(until))
    series = _ledgers(config, trained, frames, parts, run)
    start, end = min(block[0] for _, _, block in parts), max(block[1] for _, _, block in parts)
    notes = [*config.execution.assumptions(market.ticks), *notes]
    cards = {
        name: score(x, config.fees, start, end, notes=notes, seed=trained.seed)
        for name, x in series.items()
    }
    schedule, folder = trained.strategy.schedule, run.backtest_folder(config.name)
    ranked = sorted(cards, key=lambda name: cards[name].schedules[schedule].net_bps_total)
    middle = ranked[(len(ranked) - 1) // 2]
    card, ledger = cards[middle], series[middle]
    save_scorecard(card, ledger, folder)
    equity = folder / "equity.png"
    plot_equity(
        ledger, config.fees, equity, start=start, end=end, title=f"{run.id}: {card.verdict}"
    )
    print_scorecard(card, schedule=schedule)
    if len(cards) > 1:
        save_scorecards(cards, folder)
        print_spread(cards, schedule=schedule, shown=middle)
    _track_backtest(config, run, card, equity)
    sys.stdout.write(f"run={run.id} scorecard={folder / 'scorecard.json'} figure={equity}\n")
    return card


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an Interrupted outside of a fit too, which has its own way to end: between two
    of its steps.
    """

    def stop(number: int, _: object) -> None:
        signal.signal(
            number, signal.SIG_IGN
        )  # Slurm sends it twice, and the second would end the first one's way out
        raise Interrupted(number, "outside of a training; what was finished is kept")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(
    config: TrainConfig, run: Run, *, watch: Watch | None, group: str, last: Last | None
) -> tuple[float, bool]:
    """The objective's value, and whether the watch ended the run before its units were done."""
    frames, splits, keys, stages_s = _read_frames(config, run, last)
    seeds = range(config.seed, config.seed + config.seeds)
    units = [make_unit(config, frames, split, seed) for split in splits for seed in seeds]
    watched = Watched(watch, len(units), config.trainer.epochs)
    with _open_tracker(config, run, group=group) as tracker:
        tracker.summary(
            {f"data/{name}": value for name, value in frames.market.ticks.notes.items()}
        )
        fits = []
        for unit in units:
            prefix = f"{unit.name}/" if len(units) > 1 else ""
            fits.append(fit_unit(config, frames, unit, run, tracker, watched, prefix=prefix))
            weights = run.fold_folder(unit.split.fold, unit.seed) / "weights.safetensors"
            about = {"fold": unit.split.fold, "seed": unit.seed} | keys.plain()
            tracker.artifact(f"{unit.name}/weights", weights, about)
            if watched.unit(fits[-1][0]):
                break
        done = units[: len(fits)]
        metrics = over_folds_and_seeds(
            [unit.seed for unit in done], [metrics for metrics, _ in fits]
        )
        if len(done) > 1:
            print_over_seeds(metrics, objective=config.objective)
        metrics |= {metric("train", "stages_s"): stages_s}
        run.write_metrics(metrics)
        run.write_predictions(pl.concat([predictions for _, predictions in fits]))
        folders = [run.fold_folder(unit.split.fold, unit.seed) for unit in done]
        run.write_daily(pl.concat([run.read_daily(folder=folder) for folder in folders]))
        tracker.summary(metrics)
    return metrics[config.objective], watched.pruned


def _read_frames(
    config: TrainConfig, run: Run, last: Last | None
) -> tuple[Frames, list[Split], DataKeys, float]:
    """What the run's folds are cut from, read up to the last validation's end, and the seconds that
    it took.
    """
    begun = (run.folder / "config.json").exists()
    before = read_data_keys(run) if begun and run.read_about()["data_keys"] else None
    if before is None:
        _write_config(
            config, run, data_keys=None
        )  # before any data are read: what a kill leaves can be gone on with
    clock = time.perf_counter()
    cache = Cache(Path(config.paths.cache))
    market = build_market(config.data, config.bars, config.features, cache, last=last)
    keys = DataKeys(span=(market.ticks.start, market.ticks.end), bars=market.bar_keys)
    if before is not None and before.plain() != keys.plain():
        raise RunError(
            f"run {run.id}: its data, or the code that makes bars of them, changed since; train it anew"
        )
    if before is None:  # else the account of the code that began the run stays
        _write_config(config, run, data_keys=keys)
    splits = make_periods(*keys.span, config.splits)
    frames = build_frames(config, market.before(reads_until(splits)))
    return frames, splits, keys, time.perf_counter() - clock


def _open_tracker(
    config: TrainConfig | BacktestConfig, run: Run, *, group: str = "", job: str = "train"
) -> Tracker:
    plain = config.plain()
    return open_tracker(
        config.logger,
        run.tracked_id,
        run.folder,
        config=plain,
        tags=config.tags,
        group=group,
        job=job,
    )


def _write_config(config: TrainConfig, run: Run, *, data_keys: DataKeys | None) -> None:
    """The run's own account of itself, without the paths of this machine."""
    plain = config.plain()
    plain.pop("paths")
    path = plain["data"].pop("path", None)
    if path is not None:
        remember_path(Path(config.paths.runs), run.id, path)
    run.write_config(plain, data_keys=data_keys.plain() if data_keys else {})


def _compare(repeated: Run, run: Run) -> None:
    """Says whether `run` came to the numbers of the run it repeats, and if not, what differs."""
    before, after = repeated.read_metrics(), run.read_metrics()
    names = [name for name in before if not is_timing(name)]
    changed = [name for name in names if before[name] != after.get(name)]
    if not changed:
        sys.stdout.write(
            f"reproduced: all {len(names)} numbers of {repeated.id} came out the same\n"
        )
        return
    shown = "\n".join(f"  {name}: {before[name]} -> {after.get(name)}" for name in changed[:10])
    reasons = "\n".join(
        f"  {line}" for line in differences(repeated.read_about(), run.read_about())
    )
    sys.stdout.write(
        f"not reproduced: {len(changed)} of {len(names)} numbers of {repeated.id} differ, such as\n{shown}\n"
        f"what else differs:\n{reasons or '  nothing that a run records: another machine, or its threads'}\n"
    )


def _ledgers(
    config: BacktestConfig, trained: TrainConfig, frames: Frames, parts: list[Part], run: Run
) -> dict[str, pl.DataFrame]:
    """Per seed and path one ledger, the folds' blocks one after the other; the forecasts are kept
    beside the card.
    """
    ledgers: dict[tuple[int, int], list[tuple[Block, pl.DataFrame]]] = {}
    predictions = []
    for seed in range(trained.seed, trained.seed + trained.seeds):
        for fold in sorted({fold for fold, _, _ in parts}):
            p_T3 = _forecast(trained, frames, run, fold, seed)
            fitted = run.read_strategy(fold, seed)
            for path, block in ((path, block) for f, path, block in parts if f == fold):
                ledger = trade(
                    trained, frames, fold, block, p_T3, fitted, execution=config.execution
                )
                ledgers.setdefault((seed, path), []).append((block, ledger))
                predictions.append(
                    to_predictions(
                        frames, [block], p_T3, fold=fold, seed=seed, split="test", path=path
                    )
                )
    run.write_predictions(pl.concat(predictions), folder=run.backtest_folder(config.name))
    several = len({path for _, path in ledgers}) > 1
    return {
        f"seed {seed}" + f", path {path}" * several: pl.concat(
            [x for _, x in sorted(found, key=lambda f: f[0])]
        )
        for (seed, path), found in sorted(ledgers.items())
    }


def _forecast(trained: TrainConfig, frames: Frames, run: Run, fold: int, seed: int) -> np.ndarray:
    classifier = load_classifier(
        run.fold_folder(fold, seed) / "weights.safetensors",
        trained.model,
        trained.transforms,
        n_features=len(frames.dataset.names),
    )
    return frames.forecast(
        predict(classifier, frames.dataset, device=trained.trainer.scoring_device())
    )


def _track_backtest(config: BacktestConfig, run: Run, card: Scorecard, equity: Path) -> None:
    """The scorecard and its figure, into the same W&B run as the training."""
    job = f"backtest_{config.name}"
    with _open_tracker(config, run, job=job) as tracker:
        plain = card.plain()
        rows = [{"schedule": name} | values for name, values in plain.pop("schedules").items()]
        tracker.summary(
            {f"{config.name}/{k}": v for k, v in plain.items() if isinstance(v, int | float | str)}
        )
        tracker.table(f"{config.name}/scorecard", pl.DataFrame(rows, infer_schema_length=None))
        tracker.figure(f"{config.name}/equity", equity)
