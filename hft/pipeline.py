"""The whole path on one screen: market -> frames -> folds and seeds -> predictions -> ledgers -> scores.

`train`, `reproduce` and `backtest` are what the entry points call. Training reads no market data at or after the end of
the last fold's validation; test rows are read by `backtest` alone, which counts their openings.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from hft.cache import Cache
from hft.config import BacktestConfig, DataKeys, TrainConfig, print_tree
from hft.data import DataError, to_iso
from hft.fold import Frames, build_frames, fit_unit, make_unit, to_predictions, trade
from hft.jobs import read_data_keys
from hft.model import load_classifier
from hft.provenance import differences
from hft.report import Scorecard, plot_equity, save_scorecard, save_scorecards, score
from hft.run import Run, RunError
from hft.runs import create_run, remember_path
from hft.spec import SpecError
from hft.splits import Block, Split, make_periods, open_until, reads_until
from hft.stages import Market, build_market
from hft.statistics import over_folds_and_seeds
from hft.tables import print_over_seeds, print_scorecard, print_spread
from hft.tracking import open_tracker
from hft.training import Interrupted, predict

Part = tuple[int, int, Block]  # fold, path, block of time


@dataclass(frozen=True)
class Outcome:
    """What one training came to: the line to paste, and what a sweep compares."""

    run: str
    objective: str
    value: float

    def __str__(self) -> str:
        return f"run={self.run} {self.objective}={self.value:.6g}  next: python backtest.py ckpt={self.run}"


def train(config: TrainConfig, *, resumed: Run | None = None, repeated: Run | None = None) -> Outcome:
    """Trains a run in `<paths.runs>/<id>/`, or goes on with `resumed`; the last line it prints is the one to paste.

    With `repeated`, says whether the numbers of that run came out again.
    """
    if config.show_config:
        print_tree(config)
    run = resumed or create_run(Path(config.paths.runs))
    with run.working():
        try:
            with _terminable():
                value = _train(config, run, resumed=resumed is not None)
        except Interrupted:
            sys.stderr.write(f"go on with: python train.py resume={run.id}\n")
            raise
    if repeated is not None:
        _compare(repeated, run)
    outcome = Outcome(run.id, config.objective, value)
    sys.stdout.write(f"{outcome}\n")
    return outcome


def backtest(config: BacktestConfig, trained: TrainConfig, run: Run) -> Scorecard:
    """Scores a run on rows it never saw: its own test period, the locked final one, or all of another market's data.

    Every seed, and with cpcv every path, is a series of its own: the card is that of the middle one by net return at
    the strategy's schedule, and their spread is printed beside it.
    """
    market = build_market(config.data, trained.bars, trained.features, Cache(Path(config.paths.cache)))
    parts, until, notes = _to_score(config, trained, market, run)
    frames = build_frames(trained, market.before(until))
    series = _ledgers(config, trained, frames, parts, run)
    start, end = min(block[0] for _, _, block in parts), max(block[1] for _, _, block in parts)
    notes = [*config.execution.assumptions(market.ticks), *notes]
    cards = {name: score(x, config.fees, start, end, notes=notes, seed=trained.seed) for name, x in series.items()}
    schedule, folder = trained.strategy.schedule, run.backtest_folder(config.name)
    ranked = sorted(cards, key=lambda name: cards[name].schedules[schedule].net_bps_total)
    middle = ranked[(len(ranked) - 1) // 2]
    card, ledger = cards[middle], series[middle]
    save_scorecard(card, ledger, folder)
    equity = folder / "equity.png"
    plot_equity(ledger, config.fees, equity, start=start, end=end, title=f"{run.id}: {card.verdict}")
    print_scorecard(card, schedule=schedule)
    if len(cards) > 1:
        save_scorecards(cards, folder)
        print_spread(cards, schedule=schedule, shown=middle)
    _track_backtest(config, run, card, equity)
    sys.stdout.write(f"run={run.id} scorecard={folder / 'scorecard.json'} figure={equity}\n")
    return card


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an Interrupted outside of a fit too, which has its own way to end: between two of its steps."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number, "outside of a training; what was finished is kept")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(config: TrainConfig, run: Run, *, resumed: bool) -> float:
    before = read_data_keys(run) if resumed and run.read_about()["data_keys"] else None
    if before is None:
        _write_config(config, run, data_keys=None)  # before any data are read: what a kill leaves can be gone on with
    market = build_market(config.data, config.bars, config.features, Cache(Path(config.paths.cache)))
    keys = DataKeys(span=(market.ticks.start, market.ticks.end), bars=market.bar_keys)
    if before is not None and before.plain() != keys.plain():
        raise RunError(f"run {run.id}: its data, or the code that makes bars of them, changed since; train it anew")
    if before is None:  # else the account of the code that began the run stays
        _write_config(config, run, data_keys=keys)
    splits = make_periods(*keys.span, config.splits)
    frames = build_frames(config, market.before(reads_until(splits)))
    seeds = range(config.seed, config.seed + config.seeds)
    units = [make_unit(config, frames, split, seed) for split in splits for seed in seeds]
    with open_tracker(config.logger, run.id, run.folder, config=config.plain(), tags=config.tags) as tracker:
        tracker.summary({f"data/{name}": value for name, value in market.ticks.notes.items()})
        fits = []
        for unit in units:
            prefix = f"{unit.name}/" if len(units) > 1 else ""
            fits.append(fit_unit(config, frames, unit, run, tracker, prefix=prefix))
            weights = run.fold_folder(unit.split.fold, unit.seed) / "weights.safetensors"
            about = {"fold": unit.split.fold, "seed": unit.seed} | keys.plain()
            tracker.artifact(f"{unit.name}/weights", weights, about)
        metrics = over_folds_and_seeds([unit.seed for unit in units], [metrics for metrics, _ in fits])
        if len(units) > 1:
            print_over_seeds(metrics, objective=config.objective)
        run.write_metrics(metrics)
        run.write_predictions(pl.concat([predictions for _, predictions in fits]))
        tracker.summary(metrics)
    return metrics[config.objective]


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
    names = [name for name in before if "examples_per_s" not in name]  # nor its spread over seeds
    changed = [name for name in names if before[name] != after.get(name)]
    if not changed:
        sys.stdout.write(f"reproduced: all {len(names)} numbers of {repeated.id} came out the same\n")
        return
    shown = "\n".join(f"  {name}: {before[name]} -> {after.get(name)}" for name in changed[:10])
    reasons = "\n".join(f"  {line}" for line in differences(repeated.read_about(), run.read_about()))
    sys.stdout.write(
        f"not reproduced: {len(changed)} of {len(names)} numbers of {repeated.id} differ, such as\n{shown}\n"
        f"what else differs:\n{reasons or '  nothing that a run records: another machine, or its threads'}\n"
    )


def _to_score(
    config: BacktestConfig, trained: TrainConfig, market: Market, run: Run
) -> tuple[list[Part], int, list[str]]:
    """(fold, path, block) of all that is scored, the time at which the market is cut, and what to note about it.

    None of it was trained on; each reading of a locked or test period is counted.
    """
    known = read_data_keys(run)
    splits = make_periods(*known.span, trained.splits)
    latest = max(splits, key=lambda split: split.hull("select")[1])
    start, end = market.ticks.start, market.ticks.end
    if config.data.plain() != trained.data.plain():
        notes = [_open_elsewhere(config, trained, market, run, splits, latest)]
        return [(latest.fold, 0, (start, end))], end, notes
    role = "final" if config.open_final else "test"
    if config.open_final and "final" not in latest.periods:
        raise SpecError(f"open_final: run {run.id} has no locked period (splits.final was 0)")
    if config.open_final:
        parts = [(latest.fold, 0, block) for block in latest.periods["final"]]
    else:
        parts = [(s.fold, p, b) for s in splits for p, b in zip(s.paths, s.periods["test"], strict=True)]
    first, last = min(block[0] for _, _, block in parts), max(block[1] for _, _, block in parts)
    if first < start or end < last:
        raise DataError(
            f"data: {to_iso(start)} to {to_iso(end)} does not hold the {role} period of run {run.id} "
            f"({to_iso(first)} to {to_iso(last)}); bring its files back, or choose other data: data=<kind>"
        )
    notes = [f"opening {run.count_opening(role, config.plain())} of this run's {role} period"]
    changed = known.bars != market.bar_keys
    notes += ["the data, or the code that makes bars of them, changed since training"] * changed
    return parts, known.span[1] if config.open_final else open_until(splits), notes


def _open_elsewhere(
    config: BacktestConfig, trained: TrainConfig, market: Market, run: Run, splits: list[Split], latest: Split
) -> str:
    """Counts the reading of other data than the run's own, or of another part of them, and says so.

    Raises DataError where they hold rows that the run was trained on, or rows that are locked.
    """
    if config.open_final:
        raise SpecError("open_final: the locked period is one of the run's own data; leave data=from_run")
    same = config.data.source() == trained.data.source()
    start, end = market.ticks.start, market.ticks.end
    first, until = read_data_keys(run).span[0], reads_until(splits)
    shown = f"data: {to_iso(start)} to {to_iso(end)} holds rows"
    if same and start < until and first < end:
        raise DataError(
            f"{shown} that run {run.id} was trained on ({to_iso(first)} to {to_iso(until)}); set "
            f"data.start={to_iso(until)} or later, or leave data=from_run for its test period"
        )

    def touches(blocks: Sequence[Block]) -> bool:
        return same and any(start < last and begin < end for begin, last in blocks)

    locked = latest.periods.get("final", ())
    if touches(locked):
        raise DataError(
            f"{shown} of the locked period of run {run.id} ({to_iso(locked[0][0])} to {to_iso(locked[-1][1])}); set "
            f"data.end={to_iso(locked[0][0])} or earlier, or open it: open_final=true with data=from_run"
        )
    if any(touches(split.periods["test"]) for split in splits):
        return f"opening {run.count_opening('test', config.plain())} of rows of this run's test period"
    return f"opening {run.count_opening('other', config.plain())} of other data than the run's own test period"


def _ledgers(
    config: BacktestConfig, trained: TrainConfig, frames: Frames, parts: list[Part], run: Run
) -> dict[str, pl.DataFrame]:
    """Per seed and path one ledger, the folds' blocks one after the other; the forecasts are kept beside the card."""
    ledgers: dict[tuple[int, int], list[tuple[Block, pl.DataFrame]]] = {}
    predictions = []
    for seed in range(trained.seed, trained.seed + trained.seeds):
        for fold in sorted({fold for fold, _, _ in parts}):
            p_T3 = _forecast(trained, frames, run, fold, seed)
            fitted = run.read_strategy(fold, seed)
            for path, block in ((path, block) for f, path, block in parts if f == fold):
                ledger = trade(trained, frames, fold, block, p_T3, fitted, execution=config.execution)
                ledgers.setdefault((seed, path), []).append((block, ledger))
                predictions.append(to_predictions(frames, [block], p_T3, fold=fold, seed=seed, split="test", path=path))
    run.write_predictions(pl.concat(predictions), folder=run.backtest_folder(config.name))
    several = len({path for _, path in ledgers}) > 1
    return {
        f"seed {seed}" + f", path {path}" * several: pl.concat([x for _, x in sorted(found, key=lambda f: f[0])])
        for (seed, path), found in sorted(ledgers.items())
    }


def _forecast(trained: TrainConfig, frames: Frames, run: Run, fold: int, seed: int) -> np.ndarray:
    classifier = load_classifier(
        run.fold_folder(fold, seed) / "weights.safetensors",
        trained.model,
        trained.transforms,
        n_features=len(frames.dataset.names),
    )
    return frames.forecast(predict(classifier, frames.dataset, device=trained.trainer.scoring_device()))


def _track_backtest(config: BacktestConfig, run: Run, card: Scorecard, equity: Path) -> None:
    """The scorecard and its figure, into the same W&B run as the training."""
    job = f"backtest_{config.name}"
    with open_tracker(config.logger, run.id, run.folder, config=config.plain(), tags=config.tags, job=job) as tracker:
        plain = card.plain()
        rows = [{"schedule": name} | values for name, values in plain.pop("schedules").items()]
        tracker.summary({f"{config.name}/{k}": v for k, v in plain.items() if isinstance(v, int | float | str)})
        tracker.table(f"{config.name}/scorecard", pl.DataFrame(rows, infer_schema_length=None))
        tracker.figure(f"{config.name}/equity", equity)
