"""Kyle, Amihud, Roll and the effective spread against numpy, a plain twin and planted truths."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_DAY
from hft.dataset.features import build_tick_columns
from hft.market.bars import build_bars, trade_bounds
from hft.spec import SpecError
from tests.dataset.features.market import BARS, book_ticks, feature


def random_frame(n=200, seed=0):
    rng = np.random.default_rng(seed)
    volume = rng.lognormal(size=n) + 0.1
    buy = volume * rng.random(n)
    close = 60_000 * np.exp(np.cumsum(rng.normal(0, 1e-4, n)))
    segment = np.repeat([0, 1], [n // 2, n - n // 2])
    columns = {
        "segment": segment,
        "close": close,
        "volume": volume,
        "turnover": volume * close,
        "buy_volume": buy,
    }
    return pl.DataFrame(columns).with_columns(sell_volume=pl.col("volume") - pl.col("buy_volume"))


def returns_bps(frame):
    """nan where a segment begins."""
    close, segment = frame["close"].to_numpy(), frame["segment"].to_numpy()
    returns = np.full(len(close), np.nan)
    returns[1:] = np.where(
        segment[1:] == segment[:-1], np.log(close[1:] / close[:-1]) * 1e4, np.nan
    )
    return returns


def windows(values, n):
    return [
        values[i + 1 - n : i + 1] if i + 1 >= n else np.full(n, np.nan) for i in range(len(values))
    ]


def values(spec, frame):
    return spec.column(frame).fill_null(float("nan")).to_numpy()


@pytest.mark.parametrize("response", ["log_return", "price"])
def test_kyle_lambda_is_the_least_squares_slope(response):
    frame = random_frame()
    moves = returns_bps(frame)
    if response == "price":
        moves = np.where(np.isnan(moves), np.nan, np.diff(frame["close"], prepend=np.nan))
    signed = (frame["buy_volume"] - frame["sell_volume"]).to_numpy()
    pairs = zip(windows(moves, 12), windows(signed, 12), strict=True)
    expected = [np.nan if np.isnan(y).any() else np.polyfit(x, y, 1)[0] for y, x in pairs]
    found = values(feature(kind="kyle_lambda", window=12, response=response), frame)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert np.isnan(found).sum() == 24


def test_kyle_lambda_finds_a_planted_impact():
    frame = random_frame(300)
    signed = (frame["buy_volume"] - frame["sell_volume"]).to_numpy()
    noise = np.random.default_rng(1).normal(0, 0.1, 300)
    close = 60_000 * np.exp(np.cumsum(2.5 * signed + 7.0 + noise) / 1e4)
    planted = frame.with_columns(close=pl.Series(close), segment=pl.lit(0))
    found = feature(kind="kyle_lambda", window=250, response="log_return").column(planted)[-1]
    assert found == pytest.approx(2.5, abs=0.03)


def test_kyle_lambda_is_unknown_where_signed_volume_is_constant():
    frame = random_frame(20).with_columns(buy_volume=0.3, sell_volume=0.1, segment=pl.lit(0))
    assert np.isnan(
        values(feature(kind="kyle_lambda", window=5, response="log_return"), frame)
    ).all()


def test_kyle_lambda_knows_two_things_to_regress():
    with pytest.raises(SpecError, match=r"features\.it\.response: must be 'log_return' or 'price'"):
        feature(kind="kyle_lambda", window=5, response="mid")


def test_amihud_is_the_mean_return_per_million():
    frame = random_frame()
    ratio = np.abs(returns_bps(frame)) / (frame["turnover"].to_numpy() / 1e6)
    expected = [np.mean(w) for w in windows(ratio, 9)]
    np.testing.assert_allclose(values(feature(kind="amihud", window=9), frame), expected, rtol=1e-9)


def test_roll_spread_is_two_roots_of_the_negative_covariance():
    frame = random_frame()
    covariances = [np.cov(w[1:], w[:-1], ddof=1)[0, 1] for w in windows(returns_bps(frame), 9)]
    expected = [2 * np.sqrt(np.maximum(0, -c)) for c in covariances]
    np.testing.assert_allclose(
        values(feature(kind="roll_spread", window=9), frame), expected, rtol=1e-8, atol=1e-9
    )


def test_roll_spread_finds_a_planted_bounce():
    side = np.random.default_rng(0).choice([-1, 1], 20_000)
    close = 60_000 * np.exp(
        side * 2.0 / 1e4
    )  # trades 2 bps either side of a price that stands still
    frame = pl.DataFrame({"close": close, "segment": 0})
    assert feature(kind="roll_spread", window=19_999).column(frame)[-1] == pytest.approx(
        4.0, rel=0.03
    )


def naive_effective_spread(ticks, first, stop):
    weighted = volume = 0.0
    for ts, _, _, price, qty, side in ticks.trades.rows()[first:stop]:
        known = ticks.quotes.filter(
            (pl.col("ts_recv") < ts) & (pl.col("ts_recv") >= ts // NS_PER_DAY * NS_PER_DAY)
        )
        if side and known.height:
            mid = (known["bid"][-1] + known["ask"][-1]) / 2
            weighted += qty * 2 * side * (price - mid) / mid * 1e4
            volume += qty
    return weighted / volume if volume else None


def test_effective_spread_equals_its_plain_twin():
    ticks = book_ticks(n_trades=150)
    bars = build_bars(ticks, BARS)
    bounds = trade_bounds(ticks.trades["ts_recv"].to_numpy(), bars)
    spec = feature(kind="effective_spread", window=3)
    columns = build_tick_columns(ticks, bars, {"it": spec})
    expected = [naive_effective_spread(ticks, *pair) for pair in itertools.pairwise(bounds)]
    np.testing.assert_allclose(
        columns["effective_spread"].to_numpy(),
        np.array(expected, float),
        rtol=1e-9,
        err_msg="per bar",
    )
    frame = bars.hstack(columns.drop("bar"))
    by_hand = bars.select("segment", pl.Series("x", expected)).select(
        pl.col("x").rolling_mean(3).over("segment")
    )
    np.testing.assert_allclose(spec.column(frame).to_numpy(), by_hand["x"].to_numpy(), rtol=1e-9)
