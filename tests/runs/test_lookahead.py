"""The prover finds what sees the future, in every room, and finds nothing in what ships."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from hft.cli.audit import MARKET
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.learning.model import ModelSpec
from hft.market.bars.tick import TickBars
from hft.market.data import load_ticks
from hft.runs import lookahead
from hft.runs.lookahead import (
    audit,
    audit_frame,
    audit_model,
    available,
    change_future,
    first_difference,
)
from tests.runs.leaky import SMALL


@pytest.fixture(scope="module")
def config():
    return make_config(TrainConfig, [*MARKET, *SMALL])


@pytest.fixture(scope="module")
def ticks(config):
    return load_ticks(config.data)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


class LeakyBars(TickBars):
    """Says at its close what the highest price of the day will be."""


def leaky_bars(spec):
    def compute(ticks):
        bars = lookahead._bars_of(spec)(ticks)
        return bars.with_columns(high=pl.lit(ticks.trades["price"].max()))

    return compute


class Centred(nn.Module):
    receptive_field = 3

    def __init__(self, n_features):
        super().__init__()
        self.convolution = nn.Conv1d(n_features, 3, 3, padding=1)

    def forward(self, x_BTF):
        return self.convolution(x_BTF.transpose(1, 2)).transpose(1, 2)


class CentredSpec(ModelSpec):
    kind: Literal["centred"]

    @property
    def receptive_field(self):
        return 3

    def build(self, n_features):
        return Centred(n_features)


class Normed(Centred):
    """Causal but for its batch statistics, which see all of the sequence: in training mode only."""

    def __init__(self, n_features):
        super().__init__(n_features)
        self.convolution = nn.Conv1d(n_features, 3, 1)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x_BTF):
        return self.norm(self.convolution(x_BTF.transpose(1, 2))).transpose(1, 2)


class NormedSpec(CentredSpec):
    def build(self, n_features):
        return Normed(n_features)


def test_every_shipped_kind_is_clean(config, monkeypatch):
    monkeypatch.setattr(lookahead, "N_CUTS", 2)
    findings = list(audit(config))
    assert [f for f in findings if f.leak] == []
    assert {f.room for f in findings} == {"bars", "features", "labels", "model"}
    assert all(f.rows > 0 for f in findings)
    assert len([f for f in findings if f.room == "features"]) == len(
        list(lookahead.shipped_features())
    )


def test_a_leaky_bar_is_found(ticks, rng):
    spec = LeakyBars(kind="tick", size=20)
    assert audit_frame("bars", "clean", ticks, lookahead._bars_of(spec), rng=rng).leak == ""
    finding = audit_frame("bars", "planted", ticks, leaky_bars(spec), rng=rng)
    assert finding.leak.startswith("high of row 0 is ")
    assert "with the future " in finding.leak


def test_a_leaky_label_is_found(config, ticks, rng):
    """One that says it was known at its bar's close, though it waited for the touch."""
    honest = lookahead._labels_of(config.labels, config.bars)

    def compute(ticks):
        bars = lookahead.build_bars(ticks, config.bars)
        return honest(ticks).drop("known").join(bars.select("bar", known="ts"), on="bar")

    assert audit_frame("labels", "clean", ticks, honest, rng=rng).leak == ""
    assert audit_frame("labels", "planted", ticks, compute, rng=rng).leak != ""


@pytest.mark.parametrize("spec", [CentredSpec, NormedSpec])
def test_a_leaky_model_is_found(rng, spec):
    finding = audit_model("planted", spec(kind="centred"), n_bars=50, rng=rng)
    assert finding.leak.startswith("logits before bar ")
    assert "(training)" in finding.leak


def test_a_leak_in_evaluation_alone_is_found(rng):
    class OnlyThen(Centred):
        def forward(self, x_BTF):
            return super().forward(x_BTF) if not self.training else torch.cumsum(x_BTF, 1)[..., :3]

    class Spec(CentredSpec):
        def build(self, n_features):
            return OnlyThen(n_features)

    assert "(evaluation)" in audit_model("planted", Spec(kind="centred"), n_bars=50, rng=rng).leak


def test_nothing_compared_is_no_pass(ticks, rng):
    def nothing(ticks):
        return lookahead._bars_of(TickBars(kind="tick", size=20))(ticks).clear()

    assert "nothing was compared" in audit_frame("bars", "tick", ticks, nothing, rng=rng).leak


def test_differences_are_named():
    known = pl.DataFrame({"a": [1.0, None, 3.0], "b": [1, 2, 3]})
    assert first_difference(known, known) == (3, "")
    assert first_difference(known, known.head(2)) == (2, "row 2 of 3 is missing")
    assert first_difference(known, known.with_columns(a=pl.col("a") * (1 + 1e-12)))[1] == ""
    other = known.with_columns(a=pl.Series([1.0, 2.0, 3.0]))
    assert first_difference(known, other)[
        1
    ] == "a of row 1 is nan with one future and 2.0 with another".replace(
        "nan", repr(np.float64("nan"))
    ).replace("2.0", repr(np.float64(2.0)))


def test_another_future_has_the_same_past(ticks, rng):
    cut = (ticks.start + ticks.end) // 2
    other = change_future(ticks, cut, rng)
    for name in ("trades", "quotes", "book"):
        past = pl.col("ts_recv") < cut
        assert getattr(other, name).filter(past).equals(getattr(ticks, name).filter(past))
        assert not getattr(other, name).filter(~past).equals(getattr(ticks, name).filter(~past))
    assert (other.quotes["bid"] < other.quotes["ask"]).all()
    assert available(ticks) == {"quotes", "book"}
