"""What can be an objective: the names of all metrics that a run logs, known from its config before
it runs, and which of them compare across a sweep.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hft.metrics import MAJORITY, SPREADS, is_money, metric, results_of, scheduled
from hft.spec import SpecError

if TYPE_CHECKING:
    from hft.config.configs import TrainConfig

# A change in any of these changes what the classes mean: no metric but money can be compared across
# it (docs/design.md 6).
MONEY_ONLY = ("data", "bars", "labels", "splits", "latency_ms")


def known_metrics(config: TrainConfig) -> list[str]:
    """All names in the `metrics.json` of a run of `config`. Those that the data cannot carry are
    null there, and then without the `/sd` and `/worst` that come with several seeds.
    """
    names = [*_of_class("tune"), *_of_class("select"), *_of_money(config)]
    if config.baseline.kind != "none":
        # Without the majority's: its scores depend on the labels alone, so they would be the run's
        # again.
        of_classes = [*_of_class("tune"), *_of_class("select")]
        names += [f"baseline/{name}" for name in of_classes if MAJORITY not in name]
    names += [metric("labels", m.name) for m in results_of("labels")]
    # One number for the whole run: it has no spread over seeds.
    of_run = [metric("train", "stages_s")]
    names += [n for m in results_of("train") if (n := metric("train", m.name)) not in of_run]
    if config.seeds > 1:
        names += [f"{name}/{spread}" for name in names for spread in SPREADS]
    return names + of_run


def _of_class(role: str) -> list[str]:
    return [metric(role, m.name) for m in results_of(role, "class")]


def _of_money(config: TrainConfig) -> list[str]:
    found = results_of("select", "money")
    return [
        *(metric("select", m.name) for m in found if not m.by_schedule),
        *(
            scheduled("select", m.name, schedule)
            for schedule in config.fees
            for m in found
            if m.by_schedule
        ),
    ]


def refuse_incomparable(objective: str, jobs: list[dict[str, Any]]) -> None:
    """Raises SpecError when `objective` is a class metric and the jobs, plain configs, differ in
    what the classes mean.
    """
    if is_money(objective):
        return
    varying = [
        key
        for key in MONEY_ONLY
        if len({json.dumps(job.get(key), sort_keys=True) for job in jobs}) > 1
    ]
    if varying:
        raise SpecError(
            f"objective={objective}: not comparable across different {', '.join(varying)} (the "
            "hold share alone goes from 1 % to 91 % with the barrier width); choose money: "
            "objective=select/net_bps_day@binance_usdm_vip0"
        )
