"""Training on one screen: market -> frames -> folds and seeds -> metrics, predictions, weights.

In: a TrainConfig. Out: a run folder, and an Outcome whose line is printed last. No market data at
or after the end of the last fold's validation are read: test rows are for hft/runs/backtest.py.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hft.config.configs import DataKeys, TrainConfig, print_tree
from hft.dataset.splits import Split, make_periods, reads_until
from hft.dataset.stages import Last, Market, build_market
from hft.learning.fit import Interrupted
from hft.learning.watch import Watch, Watched
from hft.metrics import metric
from hft.report.summary import show_metrics
from hft.report.tables import print_over_seeds
from hft.runs.fold import fit_unit, over_folds_and_seeds
from hft.runs.folder import Run, RunError
from hft.runs.frames import Frames, build_frames, make_keys, make_unit
from hft.runs.jobs import read_data_keys
from hft.runs.registry import create_run, remember_path
from hft.spec import Role, numbers_of
from hft.system.cache import Cache
from hft.system.commands import typed
from hft.tracking.logger import open_tracker
from hft.tracking.tracker import Tracker


@dataclass(frozen=True)
class Outcome:
    """What one training came to: the line to paste, and what a sweep compares."""

    run: str
    objective: str
    value: float | None
    pruned: bool = False

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.6g}"
        following = f"next: {typed('backtest', f'ckpt={self.run}')}"
        if self.pruned:
            following = "pruned: its best weights are kept"
        return f"run={self.run} {self.objective}={value}  {following}"


def train(
    config: TrainConfig,
    *,
    run: Run | None = None,
    overrides: Sequence[str] = (),
    watch: Watch | None = None,
    group: str = "",
    last: Last[Market] | None = None,
) -> Outcome:
    """Trains in a new folder `<paths.runs>/<id>/`, and prints the run's line.

    With `run` it goes on there from whatever that folder holds. `overrides` are what was typed,
    kept to be shown; `group` is the trackers', `last` the market of the training before, used again
    where the data are the same. A `watch` may end the run early: it is then `pruned`, with metrics
    over the folds and seeds so far.
    """
    run = run or create_run(Path(config.paths.runs))
    outcome = train_in(run, config, overrides=overrides, watch=watch, group=group, last=last)
    sys.stdout.write(f"{outcome}\n")
    return outcome


def train_in(
    run: Run,
    config: TrainConfig,
    *,
    overrides: Sequence[str] = (),
    watch: Watch | None = None,
    group: str = "",
    last: Last[Market] | None = None,
) -> Outcome:
    """`train` in the folder of `run`, without its line."""
    if config.show_config:
        print_tree(config)
    with run.working() as work:
        try:
            with _terminable():
                value, pruned = _train(config, run, overrides, watch, group, last)
        except Interrupted:
            # A trial is gone on with by its sweep alone, which prints its own command.
            if not run.is_trial:
                sys.stderr.write(f"go on with: {typed('train', f'resume={run.id}')}\n")
            raise
        work.ends_as = "pruned" if pruned else "done"
    return Outcome(run.id, config.objective, value, pruned)


def _train(
    config: TrainConfig,
    run: Run,
    overrides: Sequence[str],
    watch: Watch | None,
    group: str,
    last: Last[Market] | None,
) -> tuple[float | None, bool]:
    """The objective's value, and whether the watch ended the run before its units were done."""
    frames, splits, keys, stages_s = _read_frames(config, run, overrides, last)
    seeds = range(config.seed, config.seed + config.seeds)
    # All units before the first fit: a fold with too few rows is refused at once, not hours later.
    units = [make_unit(config, frames, split, seed) for split in splits for seed in seeds]
    watched = Watched(watch, len(units), config.trainer.epochs)
    job = "trial" if run.is_trial else "folds" if len(units) > 1 else "train"
    with _open_tracker(config, run, group, job) as tracker:
        notes = frames.market.ticks.notes
        tracker.summary({f"data/{name}": value for name, value in notes.items()})
        fits = []
        for unit in units:
            # A single unit's curves keep the names under which runs are compared.
            prefix = f"{unit.name}/" if len(units) > 1 else ""
            fits.append(fit_unit(config, frames, unit, run, tracker, watched, prefix=prefix))
            weights = run.fold_folder(unit.split.fold, unit.seed) / "weights.safetensors"
            # The keys go along: weights that are found in W&B then tell what they were made of.
            about = {"fold": unit.split.fold, "seed": unit.seed} | keys.plain()
            tracker.artifact(f"{unit.name}/weights", weights, about)
            if watched.unit(fits[-1][0]):
                break
        done = units[: len(fits)]
        metrics = over_folds_and_seeds([unit.seed for unit in done], [found for found, _ in fits])
        if len(done) > 1:
            print_over_seeds(metrics, objective=config.objective)
        metrics |= {metric("train", "stages_s"): stages_s}
        run.write_metrics(metrics)
        run.write_predictions(pl.concat([predictions for _, predictions in fits]))
        # Read back, because a resumed run has not computed the units that were finished before.
        folders = [run.fold_folder(unit.split.fold, unit.seed) for unit in done]
        run.write_daily(pl.concat([run.read_daily(folder=folder) for folder in folders]))
        paid = config.strategy.schedule
        show_metrics(tracker, metrics, objective=config.objective, fees=config.fees, schedule=paid)
    return metrics[config.objective], watched.pruned


def _read_frames(
    config: TrainConfig, run: Run, overrides: Sequence[str], last: Last[Market] | None
) -> tuple[Frames, list[Split], DataKeys, float]:
    """What the run's folds are cut from, read up to the last validation's end, and the seconds that
    it took.
    """
    begun = (run.folder / "config.json").exists()
    # A run that was killed while its data were built has a config, but no keys yet.
    before = read_data_keys(run) if begun and run.read_about()["data_keys"] else None
    # What began the run, not what was typed to go on with it.
    overrides = run.read_overrides() if begun else overrides
    if before is None:  # written before any data are read: what a kill leaves can be gone on with
        _write_config(config, run, overrides, data_keys=None)
    clock = time.perf_counter()
    cache = Cache(Path(config.paths.cache))
    market = build_market(config.data, config.bars, config.features, cache, last=last)
    keys = make_keys(config, market)
    # Weights of one set of rows that go on with another would be a run that nobody can repeat.
    if before is not None and (moved := before.moved(keys)):
        raise RunError(
            f"run {run.id}: its {', '.join(moved)} changed since (other data, code or libraries "
            "make them); train it anew"
        )
    if before is None:  # else the account of the code that began the run stays
        _write_config(config, run, overrides, data_keys=keys)
    splits = make_periods(*keys.span, config.splits)
    # Test rows go before features and labels are built, so that nothing fitted can have seen them.
    frames = build_frames(config, market.before(reads_until(splits)))
    return frames, splits, keys, time.perf_counter() - clock


def _open_tracker(config: TrainConfig, run: Run, group: str, job: str) -> Tracker:
    return open_tracker(
        config.logger,
        run.tracked_id,
        run.folder,
        config=config.plain(),
        tags=config.tags,
        group=group,
        job=job,
    )


def _write_config(
    config: TrainConfig, run: Run, overrides: Sequence[str], *, data_keys: DataKeys | None
) -> None:
    """The run's own account of itself, without the paths of this machine."""
    plain = numbers_of(TrainConfig, config.plain(), without=(Role.PLACE,))
    # The note stays with this machine. Without it `resume=` would need data.path= each time.
    path = getattr(config.data, "path", None)
    if path is not None:
        remember_path(Path(config.paths.runs), run.id, path)
    keys = data_keys.plain() if data_keys else {}
    run.write_config(plain, data_keys=keys, overrides=overrides)


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an Interrupted while no fit runs; a fit ends in its own way, between two of its
    steps.
    """

    def stop(number: int, _: object) -> None:
        # Slurm sends it twice, and the second would end the first one's way out.
        signal.signal(number, signal.SIG_IGN)
        raise Interrupted(number, "outside of a training; what was finished is kept")

    # Python sets signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
