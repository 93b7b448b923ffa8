"""What is printed: every figure that a reader needs, and every digit of it on a narrow terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from hft.report.scorecard import Scorecard, score
from hft.report.tables import (
    print_fit,
    print_over_seeds,
    print_scorecard,
    print_spread,
    print_whole,
)
from hft.schema import CLASS_NAMES
from tests.report.test_scorecard import FEES, START, card, ledger, noisy
from tests.trading.fees.test_fees import shipped

END = START + 864_000_000_000_000  # ten days later
MONEY = "select/net_bps_day@binance_usdm_vip0"


def said(show, *arguments, width=80, **options) -> str:
    out = io.StringIO()
    show(*arguments, console=Console(file=out, width=width), **options)
    return out.getvalue()


def numbers(text: str) -> list[str]:
    return re.findall(r"[-+]?\d+\.?\d*", text)


def fit_metrics(*, rows: int = 2520, low: float | None = -0.09) -> dict[str, float | None]:
    names = ("log_loss", "majority_log_loss", "macro_f1", "majority_macro_f1", "mcc")
    found: dict[str, float | None] = {}
    for prefix in ("tune", "select", "baseline/select"):
        found |= {f"{prefix}/{name}": 0.1234 for name in (*names, "calibration_error")}
        found[f"{prefix}/rows"] = rows
    whose = ("", "random_walk_")
    found |= {f"labels/{walk}{label}": 0.25 for walk in whose for label in CLASS_NAMES}
    found |= {"select/log_loss_excess": -0.05, "select/log_loss_excess_low": low}
    found |= {"select/log_loss_excess_high": None if low is None else -0.01}
    return found | {"train/best_epoch": 3, "train/epochs": 5, "train/loss": 0.98765}


def test_a_scorecard_names_everything_that_a_reader_needs():
    notes = ("half a spread of 0.1 bps",)
    found = score(ledger(noisy(1.0)), FEES, START, END, notes=notes)
    text = said(print_scorecard, found, schedule="ladder_mid", width=160)
    for words in (
        "2024-01-01 00:00 to 2024-01-11 00:00 UTC",
        "ladder_dear",
        "ladder_mid",
        "below cost",
        "400 trades",
        "turnover 80.0 positions a day",
        "gross +1.00 per trade",
        "note: half a spread of 0.1 bps",
        "verdict: gross",
    ):
        assert words in text
    assert "no trades" in said(print_scorecard, card([]), schedule="ladder_mid")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_scorecard_keeps_its_digits(width):
    """Ten thousand trades in ten days: five digits a day, six in total."""
    found = score(ledger(noisy(-30.0, 10_000)), shipped(), START, END)
    text = said(print_scorecard, found, schedule="bybit_perp_vip3", width=width)
    assert "…" not in text
    dearest = found.schedules["okx_spot_vip1"]
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["okx_spot_vip1"]]
    assert numbers(line)[1:] == [
        "6", "8",
        f"{dearest.net_bps_trade:+.2f}",
        f"{dearest.net_bps_day:+.1f}",
        f"{dearest.net_bps_total:+.0f}",
        "0",
        f"{dearest.sharpe:.1f}",
        f"{dearest.max_drawdown_bps:.0f}",
    ]  # fmt: skip


def test_a_fit_beside_its_references():
    text = said(print_fit, fit_metrics(rows=12_345_678), name="fold-0/seed-0", strategy="theta 0.4")
    assert "…" not in text
    assert text.splitlines()[0].rstrip() == "fold-0/seed-0: calibrated, best epoch 3"
    rows = [line for line in text.splitlines() if "12345678" in line]
    names = [line.split("12345678")[0].strip() for line in rows]
    assert names == ["tune", "select", "select, baseline"]
    assert all(line.split()[-6:] == ["0.1234"] * 6 for line in rows)
    assert "hold 25.0% (25.0%)" in text
    assert "frequencies -0.0500 [-0.0900, -0.0100]: skill" in " ".join(text.split())
    assert "last of 5 epochs: 0.9877" in text
    assert "strategy: theta 0.4" in text


def test_a_fit_of_few_rows_shows_no_skill():
    text = said(print_fit, fit_metrics(low=None), name="u", strategy="s")
    assert "frequencies -0.0500: no skill shown" in " ".join(text.split())


def test_means_over_seeds_keep_their_digits():
    names = ("select/log_loss", "select/mcc", MONEY)
    metrics = {f"{name}{over}": -123456.78901 for name in names for over in ("", "/sd", "/worst")}
    text = said(print_over_seeds, metrics, objective=MONEY)
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if "-123456" in line}
    assert lines == {name: ["-123456.7890"] * 3 for name in names}


def test_the_spread_of_series_keeps_its_digits():
    cards: dict[str, Scorecard] = {f"seed {k}, path {k}": card(noisy(-1e4 * k, 40)) for k in (1, 2)}
    text = said(print_spread, cards, schedule="ladder_dear", shown="seed 1, path 1", width=50)
    nets = [c.schedules["ladder_dear"].net_bps_day for c in cards.values()]
    for name, net in zip(cards, nets, strict=True):
        (line,) = [line for line in text.splitlines()[1:] if line.strip().startswith(name)]
        assert line.split()[-1] == f"{net:+.1f}"
    assert f"{sum(nets) / 2:+.1f}" in text
    assert f"{min(nets):+.1f}" in text


def test_a_table_that_fits_keeps_to_the_width():
    table = Table("name", "verdict")
    table.add_row("a", "some words that wrap " * 5)
    lines = said(print_whole, table, width=40).splitlines()
    assert max(map(len, lines)) <= 40
