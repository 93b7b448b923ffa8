"""Does anything look ahead? The prover behind `hft audit`.

In: a short market. Every kind of bar, feature, label and model that conf/ ships is computed three
times: on all of the market, on the market cut at random times, and on one with another future
behind those times. What was known at the cut must be the same: to 1e-9 relative for frames, to the
bit for models. Out: a Finding per kind. A new kind is audited as soon as its YAML is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from hft.clock import to_iso
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset.features import FeatureSpec, build_tick_columns
from hft.dataset.labels import LabelSpec
from hft.learning.model import ModelSpec
from hft.market.bars import BarSpec, build_bars
from hft.market.data import load_ticks
from hft.market.ticks import Ticks, cut_ticks
from hft.system.conf import CONF

N_CUTS = 6
TOLERANCE = 1e-9
N_BARS_MODEL = 1200  # well beyond the longest shipped receptive field

Compute = Callable[[Ticks], pl.DataFrame]  # one row per bar; `known`: ns from which it is known


@dataclass(frozen=True)
class Finding:
    """One kind's verdict: `leak` is the first value that changed with the future, or empty."""

    room: str
    kind: str
    rows: int
    leak: str


def audit(config: TrainConfig, *, seed: int = 0) -> Iterable[Finding]:
    """A finding for every kind that conf/ ships, on the market of `config`."""
    ticks = load_ticks(config.data)
    rng = np.random.default_rng(seed)
    bars = build_bars(ticks, config.bars)
    for kind, spec in shipped("bars"):
        yield audit_frame("bars", kind, ticks, _bars_of(spec), rng=rng)
    for name, spec in shipped_features():
        # On a market without quotes a feature of quotes has nothing that could be compared.
        if spec.needs <= available(ticks):
            yield audit_frame("features", name, ticks, _feature_of(spec, config.bars), rng=rng)
    for kind, spec in shipped("labels"):
        yield audit_frame("labels", kind, ticks, _labels_of(spec, config.bars), rng=rng)
    for kind, spec in shipped("model"):
        yield audit_model(kind, spec, n_bars=min(len(bars), N_BARS_MODEL), rng=rng)


def audit_frame(
    room: str, kind: str, ticks: Ticks, compute: Compute, *, rng: np.random.Generator
) -> Finding:
    """The frame on the market cut off, then on one with a changed future, against the frame on the
    whole market, at N_CUTS random times of its second half.

    Of labels only rows that both markets have are compared: the last bars of any range have none.
    """
    whole = compute(ticks)
    # In the second half windows are full. Before it, nulls would compare equal and hide a leak.
    middle = (ticks.start + ticks.end) // 2
    compared = 0
    for cut in np.sort(rng.integers(middle, ticks.end, N_CUTS)).tolist():
        # Both are needed. A changed future keeps the times of its ticks, so that a leak of when
        # something happens shows at the cut alone. At a cut the labels that would leak are missing,
        # and only the changed future shows them.
        futures = {
            "cut off": cut_ticks(ticks, ticks.start, cut),
            "changed": change_future(ticks, cut, rng),
        }
        for what, other in futures.items():
            # Strictly before: a tick at `cut` belongs to the future already.
            known, found = whole.filter(pl.col("known") < cut), compute(other)
            if room == "labels":
                known = known.join(found.select("bar"), on="bar", how="semi")
                found = found.join(known.select("bar"), on="bar", how="semi")
            rows, leak = first_difference(known, found)
            compared += rows
            if leak:
                leak = f"{leak}, with the future {what} at {to_iso(cut)}"
                return Finding(room, kind, compared, leak)
    # Nothing compared is no pass.
    nothing = "" if compared else "nothing was compared: the market is too short for it"
    return Finding(room, kind, compared, nothing)


def first_difference(known: pl.DataFrame, found: pl.DataFrame) -> tuple[int, str]:
    """(rows compared, the first value of `known` that `found` lacks or has otherwise)."""
    found = found.head(len(known))
    if len(found) < len(known):
        return len(found), f"row {len(found)} of {len(known)} is missing"
    for name in known.columns:
        a, b = (frame[name].cast(pl.Float64).to_numpy() for frame in (known, found))
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= TOLERANCE * np.abs(a))
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            values = f"{a[row]!r} with one future and {b[row]!r} with another"
            return len(known), f"{name} of row {row} is {values}"
    return len(known), ""


def change_future(ticks: Ticks, cut: int, rng: np.random.Generator) -> Ticks:
    """The same market before `cut` (ns), another one from then on: prices drift away, sizes and
    sides are drawn anew.
    """

    def changed(stream: pl.DataFrame) -> pl.DataFrame:
        later = (stream["ts_recv"] >= cut).to_numpy()
        # One factor per row for all of its prices, so that the bid stays below the ask and the
        # changed market is a possible one.
        drift = np.where(later, 1 + np.abs(rng.normal(0, 1e-3, len(stream))).cumsum() / 100, 1.0)
        size = np.where(later, rng.lognormal(0, 1, len(stream)), 1.0)
        columns = {}
        for name in stream.columns:
            values = stream[name].to_numpy()
            # bid_qty and ask_qty begin like prices.
            if name.startswith(("price", "bid", "ask")) and "qty" not in name:
                columns[name] = values * drift
            elif "qty" in name:
                columns[name] = values * size
            elif name == "side":
                columns[name] = np.where(later, rng.choice([-1, 1], len(stream)), values).astype(
                    np.int8
                )
        return stream.with_columns(
            pl.Series(k, v, dtype=stream.schema[k]) for k, v in columns.items()
        )

    return replace(
        ticks, trades=changed(ticks.trades), quotes=changed(ticks.quotes), book=changed(ticks.book)
    )


def audit_model(
    kind: str, spec: ModelSpec, *, n_bars: int, rng: np.random.Generator, n_features: int = 4
) -> Finding:
    """Whether outputs up to a bar stay the same to the bit when later inputs change, in training
    mode (without dropout) and in evaluation mode.
    """
    import torch

    torch.manual_seed(0)
    # A new dropout mask would change every output, leak or not.
    quiet = {"dropout": 0.0} if "dropout" in type(spec).model_fields else {}
    network = spec.model_copy(update=quiet).build(n_features)
    x_BTF = torch.from_numpy(rng.normal(size=(1, n_bars, n_features)).astype(np.float32))
    # BatchNorm sees later steps in training mode alone (docs/definitions.md 1); another module may
    # do so in evaluation mode alone.
    for training in (True, False):
        network.train(training)
        with torch.no_grad():
            whole = network(x_BTF)
            for cut in rng.integers(1, n_bars, N_CUTS).tolist():
                other = x_BTF.clone()
                # A thousand times as large as the input, so that no leak through a small weight is
                # rounded away.
                other[:, cut:] = 1e3 * torch.from_numpy(
                    rng.normal(size=(1, n_bars - cut, n_features))
                )
                if not torch.equal(whole[:, :cut], network(other)[:, :cut]):
                    mode = "training" if training else "evaluation"
                    return Finding(
                        "model",
                        kind,
                        2 * N_CUTS,
                        f"logits before bar {cut} change with inputs from it on ({mode})",
                    )
    return Finding("model", kind, 2 * N_CUTS, "")


def shipped(room: str) -> Iterator[tuple[str, Any]]:
    """Every kind of a room with the numbers of its YAML."""
    for path in sorted((CONF / room).glob("*.yaml")):
        overrides = [f"{room}={path.stem}"]
        # One hour of look-back instead of a day's: the audit's market is short.
        overrides += ["bars.history_hours=1"] if "adaptive" in path.stem else []
        yield path.stem, getattr(make_config(TrainConfig, overrides), room)


def shipped_features() -> Iterator[tuple[str, FeatureSpec]]:
    """Every column of every feature set, once."""
    names = ",".join(sorted(path.stem for path in (CONF / "features").glob("*.yaml")))
    yield from make_config(TrainConfig, [f"features=[{names}]"]).features.items()


def available(ticks: Ticks) -> frozenset[str]:
    return frozenset(name for name in ("quotes", "book") if len(getattr(ticks, name)))


def _bars_of(spec: BarSpec) -> Compute:
    # A kind may have closed no bar before an early cut, which is no error here.
    return lambda ticks: build_bars(ticks, spec, allow_empty=True).with_columns(known=pl.col("ts"))


def _feature_of(spec: FeatureSpec, bar_spec: BarSpec) -> Compute:
    def compute(ticks: Ticks) -> pl.DataFrame:
        bars = build_bars(ticks, bar_spec)
        columns = build_tick_columns(ticks, bars, {"feature": spec})
        frame = pl.concat([bars, columns.drop("bar", strict=False)], how="horizontal")
        return pl.DataFrame({"known": bars["ts"], "value": spec.column(frame)})

    return compute


def _labels_of(spec: LabelSpec, bar_spec: BarSpec) -> Compute:
    """A label is known from its t_end on; rows without one say nothing here."""

    def compute(ticks: Ticks) -> pl.DataFrame:
        labels = spec.build(ticks, build_bars(ticks, bar_spec)).filter(pl.col("y").is_not_null())
        known = labels["t_end"].cum_max() + 1
        return labels.select("bar", "y", "t_end", "ret_bps").with_columns(known=known)

    return compute
