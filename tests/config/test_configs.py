"""Every mistake of a config is one line, and all come at once, before any data are read."""

from __future__ import annotations

import pytest

from hft.config.compose import make_config
from hft.config.configs import TrainConfig, print_tree
from hft.spec import SpecError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+bars.sise=3", "bars.sise: DollarBars has no such field, did you mean 'size'?"),
        ("+modle=se_tcn", "modle: TrainConfig has no such field, did you mean 'model'?"),
        ("bars.size=big", "bars.size: must be a valid number, got 'big'"),
        ("bars.size=0", "bars.size: must be greater than 0, got 0"),
        ("bars.size=nan", "bars.size: must be a"),
        ("bars.kind=dolar", "bars.kind: no such kind 'dolar', did you mean 'dollar'?"),
        (
            "bars.size=???",
            "bars.size: has no value yet (turnover per bar in quote currency); set it",
        ),
        ("~bars.size", "bars.size: must be given (turnover per bar in quote currency)"),
        ("~bars", "bars: must be given"),
        (
            "bars.kind=os.system",
            "bars.kind: must be the name of a kind (a config cannot name code), got 'os.system'",
        ),
        ("+bars._target_=os.system", "bars._target_: DollarBars has no such field"),
        (
            "features.amihud.kind=amihood",
            "features.amihud.kind: no such kind 'amihood', did you mean 'amihud'?",
        ),
        ("seed=1.5", "seed: must be a valid integer, got 1.5"),
        ("seed=-1", "seed: must be greater than or equal to 0, got -1"),
        (
            "labels.latency_ms=1",
            "labels.latency_ms must equal latency_ms=50.0, got 1.0; set latency_ms",
        ),
        (
            "objective=select/sharpe",
            "objective must be select/log_loss or select/net_bps_day@<schedule>, got",
        ),
        (
            "objective=select/net_bps_day@binance_usdm_vip10",
            "objective names no fee schedule of `fees`: 'binance_usdm_v",
        ),
        ("strategy.schedule=retail", "strategy.schedule names no fee schedule of `fees`: 'retail'"),
        ("splits.test=0.5", "must sum to 1"),
        (
            "trainer.monitor=select/log_loss",
            "trainer.monitor: must be a metric of tune, got 'select/log_loss'",
        ),
    ],
)
def test_one_mistake_one_line(override, message):
    with pytest.raises(SpecError) as error:
        make_config(TrainConfig, [override])
    lines = [line for line in str(error.value).splitlines() if message in line]
    assert len(lines) == 1, str(error.value)


def test_one_latency_for_labels_and_execution():
    config = make_config(TrainConfig, ["latency_ms=120"])
    assert config.labels.latency_ms == config.execution.latency_ms == config.latency_ms == 120


def test_the_tree_shows_every_group(capsys):
    config = make_config(TrainConfig, ["experiment=smoke"])
    print_tree(config)
    printed = capsys.readouterr().out
    for name in TrainConfig.model_fields:
        assert name in printed
    assert f"{len(config.fees)} schedules" in printed
