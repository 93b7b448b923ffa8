"""The two entry points as a shell sees them: exit status, messages, the last line, and grids under
-m.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from hft.runs.folder import Run
from hft.runs.registry import list_runs
from hft.system.cache import Cache
from tests.smoke import QUIET, ROOT, folders

SMOKE = ("experiment=smoke", *QUIET)
INLINE = "launcher=inline"  # this process is warm
# A grid on a market of many trades, in which the shipped sizes of volume and dollar bars give bars
# enough.
GRID = ("-m", "bars=volume,dollar", "labels.width=0.5,1")
BUSY = (
    "data.end=2024-01-01T00:40",
    "data.trade_qty=0.5",
    "labels.horizon=10",
    "labels.span=50",
    "model.channels=8",
    "model.levels=2",
    "model.se_window=4",
    "trainer.epochs=1",
    "show_config=false",
    "logger=none",
    *QUIET,
)


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def test_train_and_backtest_end_with_what_to_do_next(shell, tmp_path):
    ended = shell("train.py", *SMOKE, *folders(tmp_path))
    assert ended.status == 0, ended.err
    (run,) = list_runs(tmp_path / "runs")
    last = lines(ended.out)[-1]
    assert last.startswith(f"run={run.id} select/net_bps_day@binance_usdm_vip0=")
    assert last.endswith(f"  next: python backtest.py ckpt={run.id}")
    ended = shell("backtest.py", f"ckpt={run.id}", *folders(tmp_path))
    assert ended.status == 0, ended.err
    assert "verdict: " in ended.out
    assert lines(ended.out)[-1].startswith(f"run={run.id} scorecard=")
    # Hydra leaves nothing beside the runs.
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "cache"}


def test_a_process_ends_with_status_and_message(tmp_path):
    command = [
        sys.executable,
        "train.py",
        *SMOKE,
        *folders(tmp_path),
        "labels.widht=2",
        "bars.size=0",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: bars.size: must be greater than or equal to 1, got 0",
        "       labels.widht: TripleBarrier has no such field, did you mean 'width'?",
    ]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["bars=dolar"], "Could not find 'bars/dolar'"),
        (
            "train.py",
            ["modle=linear", "seed=x"],
            "did you mean 'model'?\n       seed: must be a valid integer, got 'x'",
        ),
        ("train.py", ["features=[micro"], "no viable alternative at input '[micro'"),
        (
            "train.py",
            ["sweep.kind=grid"],
            "sweep.kind=grid: only a sweep reads this; add -m or take it out",
        ),
        ("train.py", ["data=recorder"], "data.path: has no value yet"),
        (
            "train.py",
            ["experiment=smoke", "bars=dollar"],
            "experiment=smoke chose 'tick' and sets bars.size=10",
        ),
        ("backtest.py", [], "ckpt: has no value yet"),
        ("backtest.py", ["ckpt=2024"], "no run '2024'"),
        ("backtest.py", ["ckpt=latest", "execution.latency_ms=9"], "use +execution.latency_ms=9"),
        (
            "backtest.py",
            ["ckpt=latest", "nmae=x"],
            "nmae: BacktestConfig has no such field, did you mean 'name'?",
        ),
    ],
)
def test_a_mistake_is_one_message(shell, smoke, script, arguments, message):
    ended = shell(script, *arguments, *folders(smoke.root))
    assert ended.status == 2
    assert ended.err.count("error: ") == 1
    assert message in ended.err
    assert "Traceback" not in ended.err + ended.out


def test_our_own_mistakes_keep_their_traceback(shell, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("hft.runs.train.build_market", fail)
    with pytest.raises(ZeroDivisionError):
        shell("train.py", *SMOKE, *folders(tmp_path))
    assert [run.state for run in list_runs(tmp_path / "runs")] == ["failed"]


def test_an_interrupt_ends_quietly(shell, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hft.runs.train.build_market", interrupt)
    ended = shell("train.py", *SMOKE, *folders(tmp_path))
    assert ended.status == 130
    assert ended.err.splitlines()[-1].startswith("interrupted; ")
    assert [run.state for run in list_runs(tmp_path / "runs")] == ["interrupted"]


def test_the_composed_config_is_printed(shell, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    ended = shell("train.py", *SMOKE, *folders(tmp_path), "show_config=true", "trainer.epochs=1")
    assert ended.status == 0, ended.err
    assert ended.out.startswith("config\n")
    assert "kind: " in ended.out
    assert '"se_tcn"' in ended.out


@pytest.mark.parametrize("script", ["train.py", "backtest.py"])
def test_cfg_job_shows_what_was_composed(shell, script):
    ended = shell(script, "--cfg", "job", "paths.runs=here")
    assert ended.status == 0
    assert "runs: here" in ended.out
    assert "hydra:" not in ended.out


def test_help_names_the_choices_on_one_screen(shell):
    ended = shell("train.py", "--help")
    assert ended.status == 0
    words = {line.split()[0]: line.split()[1:] for line in lines(ended.out)}
    assert words["bars"][:3] == ["[dollar]", "dollar_adaptive", "tick"]
    assert words["experiment"] == ["binance_capture", "demo", "smoke"]
    assert words["fees"][0] == "[all]"  # ladders, not the schedules in them
    assert "_common" not in words["sweep"]  # part of a sweep, and none itself
    assert "from_run" not in ended.out  # train refuses it
    assert len(ended.out.splitlines()) <= 45
    assert max(map(len, ended.out.splitlines())) <= 90


def test_help_of_backtest_offers_what_the_run_had(shell):
    ended = shell("backtest.py", "--help")
    assert ended.status == 0
    assert "logger     csv [from_run] none wandb" in ended.out
    assert "ckpt=???" in ended.out
    assert "sweep" not in ended.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("bars=vol", {"bars=volume", "bars=volume_adaptive"}),
        ("experiment=sm", {"experiment=smoke"}),
    ],
)
def test_completion(shell, monkeypatch, typed, offered):
    line = f"python train.py {typed}"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    ended = shell("train.py", "-sc", "query=bash")
    assert ended.status == 0
    assert set(ended.out.split()) == offered


def trials_of(root):
    """The runs of the one study below `root`, by number."""
    (study,) = (root / "sweeps").iterdir()
    return [Run(folder) for folder in sorted(study.glob("[0-9]*"))]


def rows_of(table, runs):
    """(line, run) of the table, in its order."""
    return [(line, run) for line in lines(table) for run in runs if line.strip().startswith(run.id)]


def test_a_grid_runs_every_job_and_compares_them(shell, monkeypatch, tmp_path):
    built = []
    write = Cache._write
    monkeypatch.setattr(
        Cache,
        "_write",
        lambda cache, folder, *a: built.append(folder.parent.name) or write(cache, folder, *a),
    )
    monkeypatch.setenv("COLUMNS", "200")
    ended = shell("train.py", *GRID, *BUSY, INLINE, *folders(tmp_path))
    assert ended.status == 0, ended.err
    # The four jobs share ticks, bars and columns wherever they ask for the same.
    assert {stage: built.count(stage) for stage in set(built)} == {
        "ticks": 1, "bars": 2, "columns": 2, "features": 2, "labels": 4,
    }  # fmt: skip
    runs = trials_of(tmp_path)
    assert [run.state for run in runs] == ["done"] * 4
    asked = [
        (run.read_config()["bars"]["kind"], run.read_config()["labels"]["width"]) for run in runs
    ]
    assert asked == [("volume", 0.5), ("volume", 1), ("dollar", 0.5), ("dollar", 1)]
    table = ended.out[ended.out.index("4 runs by ") :]
    assert "select/net_bps_day@binance_usdm_vip0" in table
    rows = rows_of(table, runs)
    for row, run in rows:
        stored = run.read_config()
        assert f"bars={stored['bars']['kind']}" in row
        assert f"labels.width={stored['labels']['width']:g}" in row
    values = [run.read_metrics()["select/net_bps_day@binance_usdm_vip0"] for _, run in rows]
    assert values == sorted(values, reverse=True)
    assert len(values) == 4


def test_a_bad_job_does_not_end_the_sweep(shell, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    ended = shell("train.py", "-m", *SMOKE, INLINE, "bars.size=1000000,10", *folders(tmp_path))
    assert ended.status == 1
    assert "gives no bar" in ended.err
    assert "Traceback" not in ended.err
    failed, done = trials_of(tmp_path)
    assert (failed.state, done.state) == ("failed", "done")
    table = ended.out[ended.out.index("2 runs by ") :]
    assert f"ckpt={done.id}" in table
    assert [line for line in lines(table) if "failed" in line and "bars.size=1000000" in line]


def test_the_lowest_log_loss_is_the_best(shell, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    ended = shell(
        "train.py",
        "-m",
        *SMOKE,
        INLINE,
        "objective=select/log_loss",
        "model.channels=4,8",
        *folders(tmp_path),
    )
    assert ended.status == 0, ended.err
    runs = trials_of(tmp_path)
    order = [run for _, run in rows_of(ended.out[ended.out.index("2 runs by ") :], runs)]
    assert [run.read_metrics()["select/log_loss"] for run in order] == sorted(
        run.read_metrics()["select/log_loss"] for run in runs
    )


def test_backtests_of_several_runs(shell, smoke, tmp_path):
    run = smoke.copy(tmp_path)
    ended = shell(
        "backtest.py",
        "-m",
        f"ckpt={run.id},nothing",
        "logger=none",
        "name=many",
        *folders(tmp_path),
    )
    assert ended.status == 1
    assert f"run={run.id} scorecard=" in ended.out
    assert "error: no run 'nothing'" in ended.err
    assert "job ckpt=nothing " in ended.err
    assert "failed; the others go on" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["labels.width=0.5,1", "objective=select/log_loss"],
            "not comparable across different labels",
        ),
        (["data.seed=1,2", "objective=select/log_loss"], "not comparable across different data"),
        (
            ["objective=select/log_loss,select/net_bps_day@retail_taker"],
            "all jobs of a sweep need the same one",
        ),
        (["labels.width=0.5,-1", "seed=1,x"], "labels.width: must be greater than"),
        (["bars=tick,dollar"], "experiment=smoke chose 'tick'"),
    ],
)
def test_a_sweep_is_refused_before_its_first_job(shell, tmp_path, arguments, message):
    ended = shell("train.py", "-m", *SMOKE, *arguments, *folders(tmp_path))
    assert ended.status == 2
    assert ended.err.count("error: ") == 1
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_the_grid_from_a_cold_process(tmp_path):
    command = [sys.executable, "train.py", *GRID, *BUSY, *folders(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 runs by " in done.stdout


@pytest.mark.parametrize("argument", ["resume=latest", "reproduce=latest"])
def test_a_sweep_does_not_go_on_with_one_run(shell, tmp_path, argument):
    ended = shell("train.py", "-m", argument, "seed=1,2", *folders(tmp_path))
    assert ended.status == 2
    assert f"{argument}: means one run; take out -m" in ended.err
