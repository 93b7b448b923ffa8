"""Labels each bar's decision: LABELS hold its class, when that was known (t_end), its return and
its weight.

A decision is taken at bars.ts, enters the market `latency_ms` later and ends within `horizon` bars
(docs/definitions.md 5.11-5.14). `events` and the kind say which bars carry a decision. To add a
kind: one module here with a LabelSpec subclass, `conf/labels/<kind>.yaml`, one test. The
conformance suite covers it at once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_MS, NS_PER_S
from hft.dataset.barriers import Exits
from hft.dataset.labels._events import Events
from hft.dataset.labels._paths import read_paths
from hft.dataset.labels._random_walk import walk_like
from hft.dataset.labels._resolved import needs_prints
from hft.dataset.labels._weights import attributed_returns, average_uniqueness, end_bars, time_decay
from hft.market.ticks import Ticks
from hft.schema import CLASS_NAMES, LABELS, check
from hft.spec import Kind, UserError

__all__ = [
    "Events",
    "LabelError",
    "LabelSpec",
    "build_labels",
    "class_shares",
    "effective_labels",
    "label_bars",
    "label_report",
    "random_walk_shares",
    "restrict",
    "train_weights",
]


class LabelError(UserError):
    """Labels that these bars cannot give."""


class LabelSpec(Kind):
    horizon: int = Field(ge=1, le=100_000, description="bars after which a trade expires")
    latency_ms: float = Field(
        ge=0, le=60_000, description="from decision (bar close) to market, ms"
    )
    events: Events = Field(
        description="which bars carry a decision; the others have no label "
        "and stay in the sequence",
        json_schema_extra={"before": {"every": 1, "cusum": 0.0, "span": 100}},
    )
    # There is no uniqueness times return: AFML 4.10 divides each return by the labels alive, and
    # uniqueness would allow for the overlap twice (experiments/LOG.md).
    weights: Literal["none", "uniqueness", "return"] = Field(
        description="what a label weighs in the loss: 1, its average uniqueness, or its return "
        "shared among the labels alive (AFML 4.10, which allows for overlap itself)",
        json_schema_extra={"before": "none"},
    )
    decay: float = Field(
        gt=-1,
        le=1,
        description="weight factor of the oldest training label against the newest, linear in "
        "cumulated uniqueness; 1: no decay; negative: that share of the oldest counts nothing",
        json_schema_extra={"before": 1.0},
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of FEATURES that `offered` and `build` read beside those of BARS."""
        return ()

    def offered(self, bars: pl.DataFrame) -> np.ndarray:
        """bool[T, 3]: the classes that each bar's decision can have, none where there is no
        decision. Uses nothing later than that bar.
        """
        return np.repeat(self.events.pick(bars)[:, None], len(CLASS_NAMES), axis=1)

    def exits(self, bars: pl.DataFrame) -> Exits:
        """How a trade decided at each bar ends. Uses nothing later than that bar."""
        raise NotImplementedError

    def build(self, ticks: Ticks, bars: pl.DataFrame) -> pl.DataFrame:
        """LABELS, one row per bar; y, t_end, ret_bps and weight are null together where the class
        is unknowable.

        The last `horizon` bars of a segment have no label, touched or not. Neither has a decision
        without a print between its entry and its expiry. `build_labels` applies `events` and
        `weights`.
        """
        raise NotImplementedError


def label_bars(bars: pl.DataFrame, features: pl.DataFrame, spec: LabelSpec) -> pl.DataFrame:
    """BARS with the columns of FEATURES that `spec` reads. LabelError when one is missing."""
    missing = [name for name in spec.columns if name not in features.columns]
    if missing:
        raise LabelError(
            f"labels ({spec.kind}): reads the feature {missing[0]!r}, which `features` does not "
            f"have; it has {', '.join(features.drop('bar').columns)}"
        )
    return bars.with_columns(features[name] for name in spec.columns)


def build_labels(ticks: Ticks, bars: pl.DataFrame, spec: LabelSpec) -> pl.DataFrame:
    """LABELS; a bar without a decision has none. `bars` are what `label_bars` gives.

    Weights are raw: numbers >= 0 of any scale. A label's weight depends on the labels alive during
    its own life, and on nothing later than the close of the bar in which it ends.
    """
    decided, labels = spec.offered(bars).any(axis=1), spec.build(ticks, bars)
    # Before the weights: a bar that carries no decision shares nothing with its neighbours.
    if not decided.all():
        labels = labels.with_columns(
            pl.when(pl.Series(decided)).then(pl.col(c)).alias(c) for c in labels.columns[1:]
        )
    if spec.weights != "none":
        ends = end_bars(bars, labels)
        weight = (
            average_uniqueness(ends)
            if spec.weights == "uniqueness"
            else attributed_returns(ends, _close(bars))
        )
        labels = labels.with_columns(
            weight=pl.when(pl.col("y").is_not_null()).then(pl.Series(weight))
        )
    return check(labels, LABELS, where=f"labels ({spec.kind})")


def train_weights(
    labels: pl.DataFrame, bars: pl.DataFrame, spec: LabelSpec, *, rows_T: np.ndarray
) -> np.ndarray:
    """float64[T]: the raw weights of a fold's training rows, times `spec.decay` among them; 0
    elsewhere.
    """
    # The decay counts back from the newest training label. A row behind the training period would
    # change the weights of what was known before it.
    weight = np.where(rows_T, labels["weight"].fill_null(0.0).to_numpy(), 0.0)
    return (
        weight
        if spec.decay == 1
        else weight * time_decay(_uniqueness(labels, bars, rows_T), spec.decay)
    )


def effective_labels(labels: pl.DataFrame, bars: pl.DataFrame, *, rows_T: np.ndarray) -> float:
    """n_eff: the sum of the average uniqueness of the labels of `rows_T` among themselves."""
    return float(_uniqueness(labels, bars, rows_T).sum())


def restrict(p_T3: np.ndarray, offered_T3: np.ndarray) -> np.ndarray:
    """Class probabilities given that the class is one on offer. nan where none is, so that no trade
    is opened there.
    """
    if offered_T3.all():
        return p_T3  # the same bits, where dividing by a sum of 1 might round
    # The total is 0 where all probability lies on classes that are not on offer. Nothing is known
    # about the others then.
    p = np.where(offered_T3, p_T3, 0.0)
    total = p.sum(axis=1, keepdims=True)
    return np.divide(
        p,
        total,
        out=np.full(p.shape, np.nan),
        where=offered_T3.any(axis=1, keepdims=True) & (total > 0),
    )


def class_shares(labels: pl.DataFrame) -> dict[str, float]:
    """Shares of hold, buy and sell among the rows that have a label; all nan without any."""
    y = labels["y"].drop_nulls()
    return {
        name: float((y == code).sum() / len(y)) if len(y) else float("nan")
        for code, name in enumerate(CLASS_NAMES)
    }


def random_walk_shares(bars: pl.DataFrame, spec: LabelSpec, *, seed: int) -> dict[str, float]:
    """Class shares of `spec` on a driftless walk with the trades per bar, pace and volatility of
    `bars`, which may be any stretch of rows, such as the training period.

    These shares come from the geometry of the barriers alone, so that labels which merely restate
    them have found nothing. All nan where `spec` reads features, which a walk lacks, or where there
    are no bars.
    """
    if spec.columns or not bars.height:
        return dict.fromkeys(CLASS_NAMES, float("nan"))
    return class_shares(build_labels(*walk_like(bars, horizon=spec.horizon, seed=seed), spec))


def label_report(
    ticks: Ticks,
    bars: pl.DataFrame,
    labels: pl.DataFrame,
    spec: LabelSpec,
    *,
    rows_T: np.ndarray,
    period_T: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """What a run logs about the labels of `rows_T`, its training rows among the bars `period_T` of
    the training period.

    Shares of hold, buy and sell, and the same on a random walk; rows and n_eff; the mean holding in
    bars, and in seconds from the time of entry; the share of labels whose class the bars' highs and
    lows do not tell; the number of decisions in the period whose label is unknowable.
    """
    rows_T = rows_T & labels["y"].is_not_null().to_numpy()
    offered_T3 = spec.offered(bars)
    ends = np.where(rows_T, end_bars(bars, labels), -1)
    paths = read_paths(ticks, bars, horizon=spec.horizon, latency_ms=spec.latency_ms)
    on_ticks = needs_prints(paths, bars, spec.exits(bars), ends, offered_T3)
    # From the time of entry as meant: where the entry waits for a print, that is holding too.
    entered = bars["ts"].to_numpy()[rows_T] + round(spec.latency_ms * NS_PER_MS)
    held_ns = labels["t_end"].filter(rows_T).to_numpy() - entered
    unknowable = period_T & offered_T3.any(axis=1) & labels["y"].is_null().to_numpy()
    # Of the whole period: rows that `events` picks are no neighbours, so that no volatility can be
    # measured on them.
    walk = random_walk_shares(bars.filter(period_T), spec, seed=seed)
    return {
        **class_shares(labels.filter(rows_T)),
        **{f"random_walk_{name}": share for name, share in walk.items()},
        "rows": int(rows_T.sum()),
        "n_eff": effective_labels(labels, bars, rows_T=rows_T),
        "holding_bars": _mean((ends - np.arange(ends.size))[rows_T]),
        "holding_s": _mean(held_ns / NS_PER_S),
        "resolved_on_ticks": _mean(on_ticks[rows_T]),
        "unknowable": int(unknowable.sum()),
    }


def _uniqueness(labels: pl.DataFrame, bars: pl.DataFrame, rows_T: np.ndarray) -> np.ndarray:
    return average_uniqueness(np.where(rows_T, end_bars(bars, labels), -1))


def _close(bars: pl.DataFrame) -> np.ndarray:
    return bars["close"].to_numpy()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
