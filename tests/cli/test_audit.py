"""The prover finds what sees the future, in every room, and finds nothing in what ships."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from hft.cli import audit
from hft.cli.audit import (
    MARKET,
    audit_frame,
    audit_model,
    available,
    change_future,
    first_difference,
)
from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.dataset.features.volatility import LogReturn
from hft.learning.model import ModelSpec
from hft.market.bars.tick import TickBars
from hft.market.data import load_ticks

# A quarter of the market that the command audits; two hours and a half across midnight.
SMALL = ("data.trades_per_s=2", "data.limits_per_s=8", "data.book_interval_ms=1000")


@pytest.fixture(scope="module")
def config():
    return make_config(TrainConfig, [*MARKET, *SMALL])


@pytest.fixture(scope="module")
def ticks(config):
    return load_ticks(config.data)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


class NextReturn(LogReturn):
    """A feature that knows the next bar."""

    def column(self, frame):
        return super().column(frame).shift(-1)


class CentredMean(LogReturn):
    """A two-sided filter: a small leak at every row."""

    def column(self, frame):
        return super().column(frame).rolling_mean(5, center=True)


class Demeaned(LogReturn):
    """Scaled over the whole sample."""

    def column(self, frame):
        column = super().column(frame)
        return column - column.mean()


class LeakyBars(TickBars):
    """Says at its close what the highest price of the day will be."""


def leaky_bars(spec):
    def compute(ticks):
        bars = audit._bars_of(spec)(ticks)
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


def small_main(monkeypatch, capsys, *overrides):
    """The command on what is planted; its status and what it printed."""
    monkeypatch.setattr(audit, "N_CUTS", 2)
    status = audit.main([*SMALL, *overrides])
    return status, capsys.readouterr()


def only(monkeypatch, room, kinds):
    """What the audit finds to audit: `kinds` in `room`, one clean kind in the others."""
    shipped, features = audit.shipped, audit.shipped_features

    def few(name):
        if name == room:
            return kinds
        return [next(shipped(name))]

    monkeypatch.setattr(audit, "shipped", few)
    clean = [next((name, spec) for name, spec in features() if name == "log_return")]
    monkeypatch.setattr(audit, "shipped_features", lambda: kinds if room == "features" else clean)


def test_every_shipped_kind_is_clean(config, monkeypatch):
    monkeypatch.setattr(audit, "N_CUTS", 2)
    findings = list(audit.audit(config))
    assert [f for f in findings if f.leak] == []
    assert {f.room for f in findings} == {"bars", "features", "labels", "model"}
    assert all(f.rows > 0 for f in findings)
    assert len([f for f in findings if f.room == "features"]) == len(list(audit.shipped_features()))


@pytest.mark.parametrize("leaky", [NextReturn, CentredMean, Demeaned])
def test_a_planted_leaky_feature_fails_the_command(monkeypatch, capsys, leaky):
    only(monkeypatch, "features", [("planted", leaky(kind="log_return", window=1))])
    status, printed = small_main(monkeypatch, capsys)
    assert status == 1
    assert printed.out.splitlines()[-1] == "4 kinds audited, 1 see the future"
    (row,) = [line for line in printed.out.splitlines() if "planted" in line]
    assert "clean" not in row


def test_verdicts_as_json(monkeypatch, capsys):
    only(monkeypatch, "features", [("planted", NextReturn(kind="log_return", window=1))])
    status, printed = small_main(monkeypatch, capsys, "--json")
    assert status == 1
    findings = json.loads(printed.out)
    assert [f["room"] for f in findings] == ["bars", "features", "labels", "model"]
    assert [f["kind"] for f in findings if f["leak"]] == ["planted"]
    assert all(f["rows"] > 0 for f in findings)


def test_a_clean_selection_passes_the_command(monkeypatch, capsys):
    only(monkeypatch, "model", [])
    status, printed = small_main(monkeypatch, capsys)
    assert status == 0
    assert printed.out.splitlines()[-1] == "3 kinds audited, 0 see the future"


def test_a_leaky_bar_is_found(ticks, rng):
    spec = LeakyBars(kind="tick", size=20)
    assert audit_frame("bars", "clean", ticks, audit._bars_of(spec), rng=rng).leak == ""
    finding = audit_frame("bars", "planted", ticks, leaky_bars(spec), rng=rng)
    assert finding.leak.startswith("high of row 0 is ")
    assert "with the future " in finding.leak


def test_a_leaky_label_is_found(config, ticks, rng):
    """One that says it was known at its bar's close, though it waited for the touch."""
    honest = audit._labels_of(config.labels, config.bars)

    def compute(ticks):
        bars = audit.build_bars(ticks, config.bars)
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
        return audit._bars_of(TickBars(kind="tick", size=20))(ticks).clear()

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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bars.sise=3", "Could not override 'bars.sise'"),
        ("bars.size=0", "bars.size: must be greater than or equal to 1, got 0"),
        ("bars=dollar", "bars: experiment=smoke chose 'tick'"),
        ("bars.size=1000000000", "gives no bar"),
    ],
)
def test_what_cannot_be_audited_has_its_own_status(monkeypatch, capsys, override, message):
    status, printed = small_main(monkeypatch, capsys, override)
    assert status == 2
    assert printed.err.startswith("error: ")
    assert message in printed.err
