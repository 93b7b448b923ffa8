"""What a sweep of two real trials leaves behind: its table, its files, its runs in W&B, and
commands on all of it.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from hft.__main__ import main as hft_main
from hft.runs.folder import Run
from hft.study.study import open_study
from tests.smoke import QUIET, ROOT, folders
from tests.tracking.wandb_files import read_offline

pytestmark = pytest.mark.slow  # a sweep of two trials with W&B, a backtest, subprocesses


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two trials of the smoke experiment, swept with W&B offline: (root, what was printed, what was
    said).
    """
    root = tmp_path_factory.mktemp("swept")
    arguments = [
        "train.py", "-m", "experiment=smoke", "launcher=inline", "trainer.epochs=1", *QUIET,
        *folders(root), "sweep=random", "sweep.space=null", "sweep.enqueue=[]",
        "sweep.study=maker_v1", "sweep.n_trials=2", "optim.lr=tag(log,interval(1e-4,1e-2))",
        "objective=select/log_loss",
        "logger=wandb", "logger.mode=offline", "tags=[nightly]",
    ]  # fmt: skip
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        patched.setattr(sys, "argv", arguments)
        patched.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert ended.value.code == 0, said.getvalue()
    return root, printed.getvalue(), said.getvalue()


def test_the_commands_on_a_study_that_was_swept(swept, capsys):
    root, printed, _ = swept
    study = open_study(root / "sweeps" / "maker_v1")
    assert study.optuna.user_attrs["n_trials"] == 2
    (best,) = study.best()
    table = printed[printed.index("2 trials of maker_v1 by select/log_loss") :]
    assert f"{best.params['optim.lr']:.4g}" in table
    assert str(best.params["optim.lr"]) not in table
    sweeps = f"sweeps={root / 'sweeps'}"
    assert hft_main(["studies", sweeps]) == 0
    assert " 2/2 " in capsys.readouterr().out
    assert hft_main(["studies", "status", "study=maker_v1", sweeps]) == 0
    assert capsys.readouterr().out.startswith("maker_v1: 2 of 2 done\n2 complete, ")
    assert hft_main(["studies", "best", "study=maker_v1", sweeps]) == 0
    said = capsys.readouterr().out
    assert f"optim.lr={best.params['optim.lr']!r}" in said  # to paste: every digit
    assert "python backtest.py ckpt=maker_v1/" in said
    for name in ("results.parquet", "report.html"):
        (study.folder / name).unlink()
    assert hft_main(["studies", "export", "study=maker_v1", sweeps]) == 0
    assert pl.read_parquet(study.folder / "results.parquet")["state"].to_list() == ["complete"] * 2
    assert (study.folder / "report.html").stat().st_size > 10_000


def test_best_is_a_run_folder_that_scores_the_same(swept, shell, tmp_path):
    root, _, _ = swept
    study = open_study(root / "sweeps" / "maker_v1")
    (best,) = study.best()
    folder = tmp_path / "taken_along"
    shutil.copytree(study.folder / "best", folder)
    cards = []
    for ckpt, run in (
        (f"maker_v1/{best.number:04d}", study.trial_folder(best.number)),
        (f"{folder}{os.sep}", folder),
    ):
        ended = shell("backtest.py", f"ckpt={ckpt}", "logger=none", *folders(root))
        assert ended.status == 0, ended.err
        cards.append(json.loads((run / "backtest" / "test" / "scorecard.json").read_text()))
    assert cards[0]["trades"] > 0
    assert cards[0] == cards[1]


def test_wandb_has_the_study_and_every_trial_in_its_group(swept):
    study = open_study(swept[0] / "sweeps" / "maker_v1")
    for number in (0, 1):
        trial = read_offline(study.trial_folder(number))
        assert set(trial.ids) == {f"maker_v1-{number:04d}"}
        assert (trial.group, trial.job_type) == ("maker_v1", "trial")
        assert {"nightly", "experiment=smoke"} <= set(trial.tags)
        assert trial.name.startswith("smoke ")
        assert trial.name.endswith(f" maker_v1-{number:04d}")
        assert trial.config["optim"]["lr"] == study.trials()[number].params["optim.lr"]
        assert trial.summary["select/log_loss"] == study.trials()[number].value
    whole = read_offline(study.folder)
    assert (set(whole.ids), whole.group, whole.job_type) == ({"maker_v1"}, "maker_v1", "study")
    assert (whole.name, whole.tags) == ("study maker_v1", ["nightly", "sweep=random"])
    assert len(whole.tables["sweep/trials"]["data"]) == 2
    assert set(whole.images) == {"sweep/history", "sweep/slices"}
    assert "study maker_v1" in whole.pages["sweep/report"]


def test_the_printed_line_uploads_the_study_and_every_trial(swept):
    root, _, said = swept
    (line,) = [line for line in said.splitlines() if "wandb sync" in line]
    words = shlex.split(line.partition("wandb sync ")[2])
    folders = [Path(path) for word in words for path in glob.glob(word)]
    assert {folder.parent.parent.name for folder in folders} == {"maker_v1", "0000", "0001"}
    everything = (root / "sweeps" / "maker_v1").glob("**/wandb/offline-run-*")
    assert sorted(folders) == sorted(everything)


def test_the_results_have_scores_and_net_returns(swept):
    root, printed, _ = swept
    study = open_study(root / "sweeps" / "maker_v1")
    frame = pl.read_parquet(study.folder / "results.parquet")
    for row in frame.iter_rows(named=True):
        metrics = Run(study.trial_folder(row["number"])).read_metrics()
        names = [name for name in row if name.startswith("select/")]
        assert {name: row[name] for name in names} == {name: metrics[name] for name in names}
    assert {"select/log_loss_excess", "select/mcc", "select/trades"} <= set(frame.columns)
    assert "select/net_bps_day@binance_usdm_vip0" in frame.columns
    assert "excess" in printed
