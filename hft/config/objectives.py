"""The names of all metrics that a run logs, known from its config before it runs: what can be an
objective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hft.schema import CLASS_NAMES, drawdown_metric, metric, money_metric

if TYPE_CHECKING:
    from hft.config.configs import TrainConfig

SCORES = (
    "log_loss", "macro_f1", "accuracy", "mcc", "brier", "calibration_error",
    *(f"{name}_{label}" for name in ("precision", "recall", "pr_auc") for label in CLASS_NAMES),
)  # fmt: skip
EXCESS = ("log_loss_excess", "log_loss_excess_low", "log_loss_excess_high")
LABELS = (
    *CLASS_NAMES, *(f"random_walk_{label}" for label in CLASS_NAMES),
    "rows", "n_eff", "holding_bars", "holding_s", "resolved_on_ticks", "unknowable",
)  # fmt: skip
TRAINING = ("examples_per_s", "best_epoch", "epochs", "loss")


def known_metrics(config: TrainConfig) -> list[str]:
    """All names in the `metrics.json` of a run of `config`. Those that the data cannot carry are
    null there, and then without the `/sd` and `/worst` that come with several seeds.
    """
    names = [*_of_class("tune"), *_of_class("select"), *_of_money(config)]
    if config.baseline.kind != "none":
        names += [
            f"baseline/{name}"
            for role in ("tune", "select")
            for name in _of_class(role, majority=False)
        ]
    names += [f"labels/{name}" for name in LABELS] + [metric("train", name) for name in TRAINING]
    if config.seeds > 1:
        names += [f"{name}/{over}" for name in names for over in ("sd", "worst")]
    return [*names, metric("train", "stages_s")]


def _of_class(role: str, *, majority: bool = True) -> list[str]:
    names = [*SCORES, *(f"majority_{name}" for name in SCORES if majority), *EXCESS, "rows"]
    return [metric(role, name) for name in names]


def _of_money(config: TrainConfig) -> list[str]:
    by_schedule = [
        make("select", name) for name in config.fees for make in (money_metric, drawdown_metric)
    ]
    return [metric("select", "trades"), metric("select", "turnover_day"), *by_schedule]
