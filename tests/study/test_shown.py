"""The metrics that a study keeps with each trial: what a run logs, the strategy's own net return
before the others.
"""

from __future__ import annotations

import pytest

from hft.config.objectives import known_metrics
from hft.study.shown import heading, shown_metrics
from tests.smoke import smoke_config


@pytest.mark.parametrize("schedule", ["binance_usdm_vip0", "okx_spot_vip2"])
def test_shown_metrics_are_metrics_of_the_run(tmp_path, schedule):
    config = smoke_config(tmp_path, f"strategy.schedule={schedule}")
    names = shown_metrics(config)
    assert set(names) <= set(known_metrics(config))
    assert names[:5] == [
        "select/log_loss", "select/log_loss_excess", "select/mcc", "select/trades",
        f"select/net_bps_day@{schedule}",
    ]  # fmt: skip
    assert len(names) == len(set(names))
    assert "select/net_bps_day@maker_free" in names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("select/log_loss", "log_loss"),
        ("select/log_loss_excess", "excess"),
        ("select/net_bps_day@maker_free", "net@maker_free"),
    ],
)
def test_headings_are_short(name, shown):
    assert heading(name) == shown
