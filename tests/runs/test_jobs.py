"""What an entry point is asked to do: what a run brings along, what the command line may set beside
it, and which paths are followed.
"""

from __future__ import annotations

import json

import pytest

from hft.config.compose import compose, make_config
from hft.config.configs import TrainConfig
from hft.runs.jobs import backtest_job, read_data_keys, read_train_job
from hft.runs.registry import RunError, remember_path
from hft.spec import SpecError, UserError
from tests.smoke import cut_short, folders


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


# Beside resume= and reproduce=


def train(run, root, *overrides, key="reproduce"):
    """The job of `train.py reproduce=<run> ...`."""
    given = [f"{key}={run.id}", *folders(root), *overrides]
    composed = compose(given, full_tree=True)
    return read_train_job(composed, choices=composed.hydra.runtime.choices, overrides=given)


NUMBERS = {
    "trainer.epochs=1": "trainer.epochs: 2 in run {run}, 1 given",
    "trainer.threads=2": "trainer.threads: 1 in run {run}, 2 given",
    "trainer=gpu": "trainer: cpu in run {run}, gpu given",
    "trainer.precision=bf16": 'trainer.precision: "fp32" in run {run}, bf16 given',
    "seed=1": "seed: 0 in run {run}, 1 given",
    "bars=dollar": "bars: tick in run {run}, dollar given",
    "bars.size=12": "bars.size: 10 in run {run}, 12 given",
    "features=[book]": "features: ",
    "~trainer.threads": "trainer.threads: 1 in run {run}, nothing given",
    "data.start=2024-01-03": 'data.start: "2024-01-01" in run {run}, 2024-01-03 given',
    "+data.path=/mine": "data.path: nothing in run {run}, /mine given",
    "experiment=smoke": "experiment: its own config in run {run}, smoke given",
    "~tags": "tags: ",
}


@pytest.mark.parametrize("override", NUMBERS)
def test_what_would_change_numbers_is_refused(smoke, override):
    with pytest.raises(SpecError) as error:
        train(smoke.run, smoke.root, override)
    first, last = str(error.value).splitlines()
    assert first.startswith(NUMBERS[override].format(run=smoke.run.id))
    assert last.startswith(
        "reproduce= takes the config of the run, and nothing beside it may change its numbers: "
        "take this out, or train another run without reproduce=; only these can be set: tags=, "
    )
    assert "data.path=" not in last  # its data are simulated
    assert "experiment=" not in last


def test_everything_refused_is_named_at_once(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    cut_short(run)
    with pytest.raises(SpecError) as error:
        train(run, tmp_path, "seed=1", "tags=[a]", "trainer.epochs=1", key="resume")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["seed", "trainer.epochs"]
    assert lines[2].startswith("resume= takes the config of the run, ")
    assert "take these out" in lines[2]


SHOWN = {
    ("tags=[a]", "show_config=true"): {"tags": ["a"], "show_config": True},
    ("logger=csv",): {"logger": {"kind": "csv"}},
    ("logger.mode=online",): {"logger.mode": "online"},
    ("trainer.progress=true", "trainer.save_every_s=3"): {
        "trainer.progress": True,
        "trainer.save_every_s": 3.0,
    },
    ("trainer.profile=true",): {"trainer.profile": True},
    ("trainer=cpu", "trainer.threads=1", "bars=tick", "latency_ms=50"): {},
    ("hydra.verbose=false",): {},
}


@pytest.mark.parametrize("overrides", SHOWN, ids=" ".join)
def test_what_is_shown_or_changes_nothing_is_taken(smoke, overrides):
    job = train(smoke.run, smoke.root, *overrides)
    expected = smoke.run.read_config()
    for path, value in SHOWN[overrides].items():
        group, _, field = path.partition(".")
        expected[group] = expected[group] | {field: value} if field else value
    paths = {name: str(smoke.root / name) for name in ("runs", "sweeps", "cache")}
    assert job.config.plain() == expected | {"paths": paths}
    assert job.repeated == smoke.run


def test_a_shown_field_that_is_wrong_is_an_error_of_the_command_line(smoke):
    with pytest.raises(SpecError, match=r"^trainer.save_every_s: must be greater than or equal"):
        train(smoke.run, smoke.root, "trainer.save_every_s=-1")


def test_data_are_where_the_command_line_or_the_note_says(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    edit_config(run, data=RECORDED)
    with pytest.raises(SpecError, match=rf"^data.path: where the data of run {run.id} lie here"):
        train(run, tmp_path)
    job = train(run, tmp_path, "+data.path=/mine")
    assert job.config.data.path == "/mine"
    remember_path(tmp_path / "runs", run.id, "/noted")
    assert train(run, tmp_path).config.data.path == "/noted"


def test_places_are_not_shown(smoke, tmp_path):
    run = smoke.copy(tmp_path)
    edit_config(run, data=RECORDED)
    job = train(run, tmp_path, "+data.path=/mine", "tags=[a]")
    assert job.overrides == (f"reproduce={run.id}", "tags=[a]")
