"""The scorecard by hand, its verdicts, what is saved and drawn."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from hft.clock import NS_PER_DAY, NS_PER_S
from hft.report.figures import N_CURVES, plot_equity
from hft.report.scorecard import (
    Scorecard,
    net_bps_day,
    save_scorecard,
    score,
)
from hft.schema import LEDGER, check
from hft.spec import UserError, parse
from hft.tracking.tracker import png
from hft.trading.fees import FeeSchedule, headline
from tests.trading.fees.test_fees import shipped

START = 19_723 * NS_PER_DAY  # 2024-01-01
FEES = {
    "free_all": FeeSchedule(maker_bps=0.0, taker_bps=0.0),
    "ladder_dear": FeeSchedule(maker_bps=2.0, taker_bps=5.0),
    "ladder_mid": FeeSchedule(maker_bps=1.0, taker_bps=3.0),
    "ladder_cheap": FeeSchedule(maker_bps=0.0, taker_bps=1.0),
}


def ledger(
    gross_bps: list[float] | np.ndarray, *, days: float = 10, held_s: int = 60
) -> pl.DataFrame:
    """Longs entered at 100 at even distances over `days`, a minute each unless said."""
    n = len(gross_bps)
    gross = np.asarray(gross_bps, float)
    entry = START + (np.arange(n) * days * NS_PER_DAY / max(n, 1)).astype(np.int64)
    columns = {
        "bar": np.arange(n),
        "fold": np.zeros(n),
        "side": np.ones(n),
        "qty": np.full(n, 0.01),
        "ts_entry": entry,
        "price_entry": np.full(n, 100.0),
        "maker_entry": np.zeros(n, bool),
        "ts_exit": entry + held_s * NS_PER_S,
        "price_exit": 100 * (1 + gross / 1e4),
        "maker_exit": np.zeros(n, bool),
        "reason": ["time"] * n,
        "gross_bps": gross,
    } | {name: np.full(n, 0.5) for name in LEDGER if name.startswith("markout")}
    return check(pl.DataFrame(columns).cast(LEDGER), LEDGER, where="test")


def card(gross_bps, *, days: float = 10, **options) -> Scorecard:
    return score(
        ledger(gross_bps, days=days, **options), FEES, START, START + int(days * NS_PER_DAY)
    )


def noisy(mean: float, n: int = 400, *, sd: float = 2.0) -> np.ndarray:
    x = np.random.default_rng(0).normal(0, 1, n)
    return mean + sd * (x - x.mean()) / x.std()


def test_figures_by_hand():
    """40 trades of +12 and -4 in turn: gross 4 a trade, break-even 2 one way, 10 less 2 x 5 each at
    the dear tier.
    """
    found = card([12.0, -4.0] * 20)
    assert (found.trades, found.days) == (40, 10.0)
    assert found.gross_bps_trade == pytest.approx(4.0)
    assert found.break_even_bps == pytest.approx(2.0)
    assert found.turnover_day == pytest.approx(40 * 2 / 10, rel=1e-3)
    assert found.reasons == {"time": 40}
    assert (found.holding_s, found.long_share) == (60.0, 1.0)
    assert found.markouts["markout_1s_bps"] == 0.5
    dear, cheap = found.schedules["ladder_dear"], found.schedules["ladder_cheap"]
    assert dear.net_bps_trade == pytest.approx(-6.0)
    assert dear.net_bps_total == pytest.approx(-240.0)
    assert dear.net_bps_day == pytest.approx(-24.0)
    assert dear.hit_rate == 0.5
    assert dear.max_drawdown_bps == pytest.approx(242.0)  # from +2 after the first trade to -240
    assert cheap.net_bps_trade == pytest.approx(2.0)
    assert cheap.sharpe > 0
    assert cheap.sharpe_reason == ""


def test_a_break_even_cost_earns_nothing():
    trades = ledger(noisy(1.7))
    margin = card(noisy(1.7)).break_even_bps
    net = FeeSchedule(maker_bps=0.0, taker_bps=margin).net_bps(trades)
    assert net.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("mean", "sd", "n", "words"),
    [
        (-1.0, 2.0, 400, ["loses before costs", "break-even -0.50 bps one way ["]),
        (
            1.0,
            2.0,
            400,
            ["gross positive but below every fee (lowest 1 bps, ladder_cheap)", "break-even 0.50"],
        ),
        (1.0, 40.0, 400, ["below every fee", "gross within noise of zero"]),
        (8.0, 2.0, 400, ["pays under 2 of 3 schedules, beyond noise under 2", "break-even 4.00"]),
        (8.0, 50.0, 400, ["pays under 2 of 3 schedules, beyond noise under"]),
        (8.0, 2.0, 29, ["too few trades (29): no conclusion"]),
        (0.0, 1.0, 0, ["no trades"]),
    ],
)
def test_verdicts(mean, sd, n, words):
    verdict = card(noisy(mean, n, sd=sd) if n else []).verdict
    assert all(w in verdict for w in words), verdict


@pytest.mark.parametrize(
    ("mean", "sd", "n", "verdicts"),
    [
        (-1.0, 2.0, 400, ["loses before costs"] * 4),
        (3.0, 2.0, 400, ["pays", "below cost", "below cost", "pays"]),
        (5.0, 40.0, 400, ["pays", "below cost", "below cost, within noise", "pays, within noise"]),
        (3.0, 2.0, 12, ["too few trades (12)"] * 4),
    ],
)
def test_verdict_of_each_schedule(mean, sd, n, verdicts):
    assert [s.verdict for s in card(noisy(mean, n, sd=sd)).schedules.values()] == verdicts


def test_no_trades_is_a_scorecard_too():
    found = card([])
    assert (found.gross_bps_trade, found.break_even_bps, found.long_share, found.holding_s) == (
        None,
    ) * 4
    assert found.schedules["ladder_dear"].net_bps_day == 0.0
    assert found.schedules["ladder_dear"].hit_rate is None


def test_what_to_bear_in_mind():
    short = card(noisy(1.0), days=0.1)
    assert any("2.40 hours" in n for n in short.notes)
    assert "annualised" in short.schedules["ladder_dear"].sharpe_reason
    held = score(
        ledger([1.0] * 3, held_s=9 * 3600),
        FEES,
        START,
        START + 10 * NS_PER_DAY,
        notes=("no quotes",),
    )
    assert held.notes[0] == "no quotes"
    assert "3 positions were held across a stamp" in held.notes[1]


def test_objective_counts_a_gain_only_with_enough_trades():
    end = START + 10 * NS_PER_DAY
    cheap = FEES["ladder_cheap"]

    def value(gross):
        return net_bps_day(ledger(gross), cheap, START, end, min_trades=30)

    assert value([5.0] * 30) == pytest.approx(9.0)
    assert value([5.0] * 29) == 0.0
    assert value([-5.0] * 29) == pytest.approx(-7 * 29 / 10)
    assert value([]) == 0.0


def test_saved_scorecard_parses_back(tmp_path):
    found, trades = card(noisy(1.0)), ledger(noisy(1.0))
    save_scorecard(found, trades, tmp_path / "test")
    assert (
        parse(Scorecard, json.loads((tmp_path / "test" / "scorecard.json").read_text())).plain()
        == found.plain()
    )
    assert pl.read_parquet(tmp_path / "test" / "ledger.parquet").equals(trades)
    written = sorted(p.name for p in (tmp_path / "test").iterdir())
    assert written == ["ledger.parquet", "ledger.sha256", "scorecard.json"]


def test_a_folder_that_is_a_file_is_one_clear_message(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        save_scorecard(card([]), ledger([]), tmp_path / "taken" / "test")


@pytest.mark.parametrize("n", [0, 1, 400])
def test_equity_is_the_running_return_before_and_after_fees(n):
    trades = ledger(noisy(1.0, n) if n > 1 else [1.0] * n)
    end = START + 10 * NS_PER_DAY
    figure = plot_equity(trades, shipped(), start=START, end=end, title="no verdict " * 20)
    axes, ladder = figure.axes
    _, gross, *nets = axes.lines  # the first is the axis at 0
    assert gross.get_ydata()[-1] == pytest.approx(trades["gross_bps"].sum())
    assert len(gross.get_xdata()) == n + 2
    assert len(nets) == N_CURVES
    ends = [line.get_ydata()[-1] for line in nets]
    assert ends == sorted(ends, reverse=True)  # cheap to dear
    bars = [bar.get_width() for bar in ladder.patches]
    assert len(bars) == len(headline({name: fee.taker_bps for name, fee in shipped().items()}))
    assert bars == sorted(bars)  # dear to cheap, from below
    free = trades["gross_bps"].mean() if n else 0.0
    assert bars[-1] == pytest.approx(free)
    content = png(figure)
    assert content.startswith(b"\x89PNG")
    assert content.endswith(b"IEND\xaeB`\x82")
