"""Scoring on one screen: a run, rows it never saw -> forecasts -> ledgers -> scorecards.

In: a BacktestConfig, the run and its own config. Out: in the run's `backtest/<name>/` the card, the
ledger, the forecasts and a figure. Each reading of test or locked rows is counted
(hft/runs/openings.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from hft.config.configs import BacktestConfig, TrainConfig
from hft.dataset.splits import Block
from hft.dataset.stages import build_market
from hft.learning.classifier import load_classifier
from hft.learning.fit import predict
from hft.report.figures import plot_equity
from hft.report.scorecard import Scorecard, save_scorecard, save_scorecards, score
from hft.report.summary import show_card
from hft.report.tables import print_scorecard, print_spread
from hft.runs.folder import Run
from hft.runs.frames import Frames, build_frames, to_predictions
from hft.runs.money import trade
from hft.runs.openings import Part, rows_to_score
from hft.system.cache import Cache
from hft.system.files import write_atomic
from hft.tracking.logger import open_tracker
from hft.tracking.tracker import png, words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def backtest(config: BacktestConfig, trained: TrainConfig, run: Run) -> Scorecard:
    """Scores a run on rows it never saw: its own test period, the locked final one, or all of
    another market's data.

    Every seed, and with cpcv every path, is a series of its own: the card is that of the middle one
    by net return at the strategy's schedule, and their spread is printed beside it.
    """
    cache = Cache(Path(config.paths.cache))
    market = build_market(config.data, trained.bars, trained.features, cache)
    parts, until, notes = rows_to_score(config, trained, market, run)
    # Cut before labels are built: otherwise the last labels of test would be decided by prices of
    # the locked period.
    frames = build_frames(trained, market.before(until))
    series = _ledgers(config, trained, frames, parts, run)
    start, end = min(block[0] for _, _, block in parts), max(block[1] for _, _, block in parts)
    # What the fills had to assume is printed beside every figure (docs/definitions.md 5.19).
    notes = [*config.execution.assumptions(market.ticks), *notes]
    cards = {
        name: score(x, config.fees, start, end, notes=notes, seed=trained.seed)
        for name, x in series.items()
    }
    schedule, folder = trained.strategy.schedule, run.backtest_folder(config.name)
    ranked = sorted(cards, key=lambda name: cards[name].schedules[schedule].net_bps_total)
    # The middle one, because the best would be chosen with its result in view; of two middle ones
    # the worse. A mean over series would have no ledger.
    middle = ranked[(len(ranked) - 1) // 2]
    card, ledger = cards[middle], series[middle]
    save_scorecard(card, ledger, folder)
    equity = folder / "equity.png"
    title = f"{run.id}: {card.verdict}"
    figure = plot_equity(ledger, config.fees, start=start, end=end, title=title)
    write_atomic(equity, png(figure))
    print_scorecard(card, schedule=schedule)
    if len(cards) > 1:
        save_scorecards(cards, folder)
        print_spread(cards, schedule=schedule, shown=middle)
    _track(config, trained, run, card, figure)
    sys.stdout.write(f"run={run.id} scorecard={folder / 'scorecard.json'} figure={equity}\n")
    return card


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
            # Once per fold and seed: with cpcv a fold has several blocks, and one dense pass serves
            # all.
            p_T3 = _forecast(trained, frames, run, fold, seed)
            # Theta was learnt on `tune` while training and is never fitted again
            # (docs/definitions.md 5.17).
            fitted = run.read_strategy(fold, seed)
            for path, block in ((path, block) for f, path, block in parts if f == fold):
                ledger = trade(
                    trained, frames, fold, block, p_T3, fitted, execution=config.execution
                )
                # A path of cpcv takes its blocks from several folds (docs/definitions.md 2), so
                # that ledgers are gathered across folds and joined below.
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
            # In time order, which drawdowns and the blocks of the bootstrap rely on.
            [ledger for _, ledger in sorted(found, key=lambda part: part[0])]
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
    device = trained.trainer.scoring_device()
    return frames.forecast(predict(classifier, frames.dataset, device=device))


def _track(
    config: BacktestConfig, trained: TrainConfig, run: Run, card: Scorecard, equity: Figure
) -> None:
    """The scorecard and its figure, into the same W&B run as the training."""
    # The training's id: one row of W&B's table then has a run's validation beside its test.
    with open_tracker(
        config.logger,
        run.tracked_id,
        run.folder,
        config=config.plain(),
        tags=[*trained.tags, *words_of(trained.plain()), f"backtest={config.name}", *config.tags],
        job=f"backtest_{config.name}",
    ) as tracker:
        paid = trained.strategy.schedule
        show_card(tracker, card, name=config.name, fees=config.fees, schedule=paid, equity=equity)
