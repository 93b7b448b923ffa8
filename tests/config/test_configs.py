"""Every mistake is named at once, before any data is read; what a run may say, and what is not
followed.
"""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from hft.config import configs as config_module
from hft.config.compose import CONF, compose, make_config
from hft.config.configs import (
    MONEY_ONLY,
    TrainConfig,
    check_experiments,
    main,
    print_tree,
    refuse_incomparable,
    write_schemas,
)
from hft.runs.jobs import backtest_job, read_data_keys
from hft.runs.registry import RunError, remember_path
from hft.spec import SpecError, UserError
from tests.smoke import folders


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


def test_every_shipped_experiment_parses():
    assert check_experiments() == []


@pytest.fixture
def conf(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(config_module, "CONF", tmp_path / "conf")
    monkeypatch.setattr("hft.config.compose.CONF", tmp_path / "conf")
    return tmp_path / "conf"


def test_check_names_the_file(conf, capsys):
    (conf / "experiment" / "typo.yaml").write_text("# @package _global_\nlabels:\n  widht: 2\n")
    (conf / "experiment" / "lost.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /bars: tik\n"
    )
    assert main(["check"]) == 1
    printed = capsys.readouterr().out
    assert (
        "conf/experiment/typo.yaml: labels.widht: TripleBarrier has no such field, did you mean 'width'?"
        in printed
    )
    assert "conf/experiment/lost.yaml: " in printed


def test_the_tool_says_how_it_is_used(capsys):
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "every shipped experiment parses\n"
    assert main([]) == 2
    assert capsys.readouterr().err == "usage: hft schema|check\n"


def test_every_yaml_of_a_room_names_its_schema(tmp_path):
    written = {path.name for path in write_schemas(tmp_path)}
    for path in CONF.glob("*/*.yaml"):
        first = path.read_text().splitlines()[0]
        if "yaml-language-server" in first:
            schema = path.parent / first.partition("$schema=")[2]
            assert schema.resolve() == CONF / "schema" / f"{path.parent.name}.json"
            assert schema.name in written


def test_schemas_know_every_key_that_ships(tmp_path):
    write_schemas(tmp_path)
    schema = json.loads((tmp_path / "bars.json").read_text())
    for kind in ("tick", "dollar_adaptive"):
        body = yaml.safe_load((CONF / "bars" / f"{kind}.yaml").read_text())
        definitions = [d for d in schema["$defs"].values() if kind in str(d["properties"]["kind"])]
        assert any(set(body) <= set(d["properties"]) for d in definitions)
    assert "required" not in json.dumps(schema)


@pytest.mark.parametrize("varying", MONEY_ONLY)
def test_class_metrics_are_no_objective_across_what_changes_the_classes(varying):
    jobs = [{name: {"size": 1} for name in (*MONEY_ONLY, "model")} for _ in range(2)]
    jobs[1][varying] = {"size": 2}
    with pytest.raises(
        SpecError, match=rf"select/log_loss: not comparable across different {varying} "
    ):
        refuse_incomparable("select/log_loss", jobs)
    refuse_incomparable("select/net_bps_day@retail_taker", jobs)


def test_class_metrics_compare_models():
    jobs = [{"bars": 1, "model": {"channels": n}} for n in (8, 16)]
    refuse_incomparable("select/log_loss", jobs)


def test_the_tree_shows_every_group(capsys):
    config = make_config(TrainConfig, ["experiment=smoke"])
    print_tree(config)
    printed = capsys.readouterr().out
    for name in TrainConfig.model_fields:
        assert name in printed
    assert f"{len(config.fees)} schedules" in printed


def job(root, *overrides):
    return backtest_job(compose([*folders(root), *overrides], entry="backtest"))


def test_a_backtest_takes_from_the_run_what_it_is_not_told(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    config, trained, found = job(tmp_path, "ckpt=latest", "+execution.latency_ms=200")
    assert found == run
    assert config.data == trained.data
    assert config.logger == trained.logger
    assert config.execution.plain() == trained.execution.plain() | {"latency_ms": 200}
    assert trained.execution.latency_ms == trained.latency_ms == 50
    assert config.paths.runs == trained.paths.runs == str(tmp_path / "runs")
    assert config.tags == ("smoke", "test")


def test_a_stored_config_is_the_one_that_ran(smoke):
    _, trained, _ = job(smoke.root, "ckpt=latest")
    changed = ["logger=wandb", "logger.mode=offline", "tags=[smoke,test]", "trainer.progress=false"]
    config = make_config(
        TrainConfig, ["experiment=smoke", "trainer.threads=1", *changed, *folders(smoke.root)]
    )
    assert trained.plain() == config.plain()


def edit_config(run, **changes):
    about = run.read_about()
    about["config"] |= changes
    (run.folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "ckpt: has no value yet (the run to score); set it"),
        (["ckpt=2024"], "no run '2024'"),
        (["ckpt=latest", "~data"], "data: must be given"),
        (["ckpt=latest", "name=../out"], "name: "),
        (
            ["ckpt=latest", "+dta=synthetic"],
            "dta: BacktestConfig has no such field, did you mean 'data'?",
        ),
        (
            ["ckpt=latest", "+execution.latency=1"],
            "execution.latency: Taker has no such field, did you mean 'latency_ms'?",
        ),
        (["ckpt=latest", "+data.path=/somewhere"], "data.path: Synthetic has no such field"),
    ],
)
def test_what_a_backtest_refuses(smoke, overrides, message):
    with pytest.raises(UserError) as error:
        job(smoke.root, *overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(("state", "shown"), [("failed", "failed"), ("running", "interrupted")])
def test_a_run_that_did_not_end_well_is_not_scored(smoke, tmp_path, state, shown):
    smoke.copy(tmp_path).mark(state)
    with pytest.raises(
        RunError, match=rf"is {shown}, not done: go on with it \(python train.py resume="
    ):
        job(tmp_path, "ckpt=latest")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"kind": "posix.system"}},
            "model.kind: must be the name of a kind (a config cannot name code)",
        ),
        ({"seed": -1}, "seed: must be greater than or equal to 0, got -1"),
        ({"extra": 1}, "extra: TrainConfig has no such field"),
        ({"data": None}, "data: must be a mapping with a 'kind'"),
        ({"data": {"kind": ["recorder"]}}, "data.kind: must be the name of a kind"),
    ],
)
def test_a_foreign_config_is_named(smoke, tmp_path, changes, message):
    run = smoke.copy(tmp_path)
    edit_config(run, **changes)
    with pytest.raises(SpecError) as error:
        job(tmp_path, "ckpt=latest")
    assert str(error.value).startswith(
        f"{run.folder / 'config.json'}: not a config of ours; choose another run\n"
    )
    assert message in str(error.value)


RECORDED = {
    "kind": "recorder",
    "path": "/etc/passwd",
    "symbol": "BTCUSDT",
    "start": "first",
    "end": "last",
    "gap_s": 300.0,
    "feed_latency_floor_ms": 1.0,
    "max_delay_s": 10.0,
    "book_levels": 5,
}


def test_a_path_that_a_stranger_names_is_not_followed(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    edit_config(run, data=RECORDED, paths={"runs": "/root", "cache": "/root"})
    with pytest.raises(
        SpecError, match=rf"data.path: where the data of run {run.id} lie here is not known; set it"
    ):
        job(tmp_path, "ckpt=latest")
    config, trained, _ = job(tmp_path, "ckpt=latest", "+data.path=/mine")
    assert config.data.path == trained.data.path == "/mine"
    assert trained.paths.cache == str(tmp_path / "cache")
    remember_path(tmp_path / "runs", run.id, "/noted")
    config, trained, _ = job(tmp_path, "ckpt=latest")
    assert config.data.path == trained.data.path == "/noted"


def test_other_data_of_the_same_kind_are_not_the_runs_own(smoke, tmp_path):
    edit_config(smoke.copy(tmp_path), data=RECORDED)
    config, trained, _ = job(tmp_path, "ckpt=latest", "data=recorder", "data.path=/mine")
    assert config.data.path == "/mine"
    assert config.data != trained.data


@pytest.mark.parametrize(
    "keys", [{}, {"span": [0], "bars": []}, {"span": ["a", "b"], "bars": []}, {"span": [-1, 2**70]}]
)
def test_foreign_data_keys_are_one_clear_error(smoke, tmp_path, keys):
    run = smoke.copy(tmp_path)
    about = run.read_about() | {"data_keys": keys}
    (run.folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(
        RunError, match=r"config\.json: data_keys: not those of a run of ours; choose another run"
    ):
        read_data_keys(run)
