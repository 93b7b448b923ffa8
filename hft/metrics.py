"""Every metric once: its name, which way is better, its unit, its family, and where it is logged.

Trainers, sweeps, trackers, tables and reports ask here and keep no list of their own. A metric is
logged as `<place>/<name>`: the place is a split (`tune`, `select`), `train`, `labels`, or the name
of a backtest, which stands here as `backtest`. Metrics of a fee schedule end in `@<schedule>`; a
baseline's begin with `baseline/`; spreads over several seeds end in `/sd` and `/worst`.

To add one: a line below; docs/definitions.md says how it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hft.schema import CLASS_NAMES

Better = Literal["lower", "higher", "neither"]
Family = Literal["class", "money", "label", "training", "timing"]
SCORED = ("tune", "select")
BACKTEST = "backtest"
SPREADS = ("sd", "worst")
MAJORITY = "majority_"  # what a forecast of the majority's shares would score


@dataclass(frozen=True)
class Metric:
    """`results` are the places where a run or a backtest has one number of it, `curves` those where
    a training logs one per epoch. `class` metrics cannot be compared across different labels,
    `money` can; `timing` differs when a run is repeated.
    """

    name: str
    family: Family
    better: Better
    unit: str
    results: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    by_schedule: bool = False


def _scores() -> list[Metric]:
    """Class metrics of a forecast, and those of forecasting the majority's shares. The latter are a
    reference, so neither way is better.
    """
    shown: dict[str, tuple[Better, str]] = {
        "log_loss": ("lower", "nats"),
        "macro_f1": ("higher", "1"),
        "accuracy": ("higher", "share"),
        "mcc": ("higher", "1"),
        "brier": ("lower", "1"),
        "calibration_error": ("lower", "share"),
    }
    for name in ("precision", "recall", "pr_auc"):
        shown |= {f"{name}_{label}": ("higher", "share") for label in CLASS_NAMES}
    own = [
        Metric(name, "class", better, unit, results=SCORED, curves=("tune",))
        for name, (better, unit) in shown.items()
    ]
    majority = [replace(m, name=f"{MAJORITY}{m.name}", better="neither") for m in own]
    return [*own, *majority]


def _shares() -> list[Metric]:
    names = [f"{whose}{label}" for whose in ("", "random_walk_") for label in CLASS_NAMES]
    return [Metric(name, "label", "neither", "share", results=("labels",)) for name in names]


_TEST = (BACKTEST,)
# None on tune, where the decision threshold is chosen by it (docs/definitions.md 5.17).
_MONEY = ("select", BACKTEST)
ALL = (
    *_scores(),
    Metric("log_loss_excess", "class", "lower", "nats", results=SCORED),
    # The ends of its interval describe it: neither is a goal of its own.
    Metric("log_loss_excess_low", "class", "neither", "nats", results=SCORED),
    Metric("log_loss_excess_high", "class", "neither", "nats", results=SCORED),
    Metric("rows", "class", "neither", "rows", results=(*SCORED, "labels")),
    Metric("trades", "money", "neither", "trades", results=_MONEY, curves=("select",)),
    Metric("turnover_day", "money", "lower", "positions/day", results=_MONEY),
    Metric("net_bps_day", "money", "higher", "bps/day", results=_MONEY, curves=("select",),
           by_schedule=True),
    Metric("max_drawdown_bps", "money", "lower", "bps", results=_MONEY, by_schedule=True),
    Metric("net_bps_trade", "money", "higher", "bps", results=_TEST, by_schedule=True),
    Metric("net_bps_total", "money", "higher", "bps", results=_TEST, by_schedule=True),
    Metric("hit_rate", "money", "higher", "share", results=_TEST, by_schedule=True),
    Metric("sharpe", "money", "higher", "1/sqrt(year)", results=_TEST, by_schedule=True),
    Metric("psr", "money", "higher", "probability", results=_TEST, by_schedule=True),
    Metric("days", "money", "neither", "days", results=_TEST),
    Metric("long_share", "money", "neither", "share", results=_TEST),
    Metric("gross_bps_trade", "money", "higher", "bps", results=_TEST),
    Metric("break_even_bps", "money", "higher", "bps", results=_TEST),
    Metric("break_even_low_bps", "money", "higher", "bps", results=_TEST),
    Metric("break_even_high_bps", "money", "higher", "bps", results=_TEST),
    *_shares(),
    Metric("n_eff", "label", "neither", "rows", results=("labels",)),
    Metric("holding_bars", "label", "neither", "bars", results=("labels",)),
    Metric("holding_s", "label", "neither", "s", results=("labels", BACKTEST)),
    Metric("resolved_on_ticks", "label", "neither", "share", results=("labels",)),
    Metric("unknowable", "label", "neither", "rows", results=("labels",)),
    Metric("loss", "training", "lower", "loss", results=("train",), curves=("train", "tune")),
    Metric("best_epoch", "training", "neither", "epochs", results=("train",)),
    Metric("epochs", "training", "neither", "epochs", results=("train",)),
    Metric("lr", "training", "neither", "1", curves=("train",)),
    Metric("lr_min", "training", "neither", "1", curves=("train",)),
    Metric("lr_max", "training", "neither", "1", curves=("train",)),
    Metric("gate", "training", "neither", "share", curves=("tune",)),
    Metric("gate_spread", "training", "neither", "share", curves=("tune",)),
    Metric("grad_norm", "training", "neither", "1", curves=("train",)),
    Metric("grad_norm_max", "training", "neither", "1", curves=("train",)),
    Metric("examples_per_s", "timing", "higher", "rows/s", results=("train",), curves=("train",)),
    Metric("stages_s", "timing", "lower", "s", results=("train",)),
)  # fmt: skip
METRICS = {metric.name: metric for metric in ALL}
# What a tracker's summary has of a run: some forty numbers by which runs are told apart and sorted.
SHOWN = frozenset(
    {
        *("loss", "log_loss", "majority_log_loss", "log_loss_excess", "log_loss_excess_low"),
        *("log_loss_excess_high", "macro_f1", "mcc", "calibration_error"),
        *("trades", "turnover_day", "net_bps_day", "max_drawdown_bps", "net_bps_trade"),
        *("hit_rate", "sharpe", "psr", "gross_bps_trade", "long_share", "days"),
        *("break_even_bps", "break_even_low_bps", "break_even_high_bps"),
        *(*CLASS_NAMES, "n_eff", "holding_s"),
        *("best_epoch", "epochs", "examples_per_s", "stages_s"),
    }
)


def metric(place: str, name: str) -> str:
    """The one spelling of a logged metric: `tune/log_loss`, `select/macro_f1`."""
    return f"{place}/{name}"


def money_metric(place: str, schedule: str) -> str:
    """Net bps per calendar day under a fee schedule: `select/net_bps_day@binance_usdm_vip0`."""
    return scheduled(place, "net_bps_day", schedule)


def drawdown_metric(place: str, schedule: str) -> str:
    """Largest fall of the running net return: `select/max_drawdown_bps@binance_usdm_vip0`."""
    return scheduled(place, "max_drawdown_bps", schedule)


def scheduled(place: str, name: str, schedule: str) -> str:
    """A metric of money under a fee schedule: `test/sharpe@binance_usdm_vip0`."""
    return f"{metric(place, name)}@{schedule}"


def find(logged: str) -> Metric | None:
    """The metric of a logged name, whatever stands before and after it:
    `fold-0/seed-7/tune/mcc`, `select/net_bps_day@maker_free/worst`. None for what is no metric.
    """
    name, _, spread = logged.rpartition("/")
    name = name if spread in SPREADS else logged
    return METRICS.get(name.rpartition("/")[2].partition("@")[0])


def lower_is_better(logged: str) -> bool:
    """Whether a logged metric is to be minimised. What has no better way counts as higher is
    better: its worst over seeds is the least.
    """
    # The spread over seeds is to be small, whichever way the metric itself is better.
    if logged.endswith("/sd"):
        return True
    found = find(logged)
    return found is not None and found.better == "lower"


def is_timing(logged: str) -> bool:
    """Whether a metric tells how fast a run went, or the spread of that over its seeds."""
    found = find(logged)
    return found is not None and found.family == "timing"


def is_money(logged: str) -> bool:
    """Whether a metric can be compared across different labels, bars and data."""
    found = find(logged)
    return found is not None and found.family == "money"


def results_of(place: str, *families: Family) -> list[Metric]:
    """The metrics with one number at `place`, in the registry's order; of `families`, or of all."""
    return [m for m in ALL if place in m.results and (not families or m.family in families)]
