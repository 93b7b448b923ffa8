"""What a study leaves behind: the best that is allowed, whole or not at all; the same in W&B."""

from __future__ import annotations

import pytest

from hft.study import export as study_export
from hft.study.export import log_study, write_best
from hft.study.figures import draw_all
from hft.study.report import make_report
from hft.study.trials import next_lines
from hft.tracking.logger.csv import Csv
from hft.tracking.logger.none import NoLogger
from hft.tracking.logger.wandb import Wandb
from tests.study.small_study import end, every_fate, small_study, write_run
from tests.tracking.wandb_files import read_offline

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_best_holds_what_scores_the_run(folder):
    study = every_fate(folder)
    write_run(study, 1)
    best = write_best(study)
    names = sorted(str(p.relative_to(best)) for p in best.rglob("*") if p.is_file())
    units = [
        f"fold-0/seed-{s}/{n}" for s in (7, 8) for n in ("strategy.json", "weights.safetensors")
    ]
    assert names == ["config.json", *units, "next.txt", "state.json"]
    assert (best / "next.txt").read_text().splitlines() == next_lines(study, study.trials()[1])
    assert not list(folder.glob(".best-*"))


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_leaves_the_old_best_or_the_new(folder, monkeypatch, exchange):
    if not exchange:
        # A flag that no file system knows.
        monkeypatch.setattr(study_export, "RENAME_EXCHANGE", 2**20)
    study = every_fate(folder)
    write_run(study, 1, note="old")
    write_best(study)
    (study.trial_folder(1) / "config.json").write_text('{"note": "new"}')
    with monkeypatch.context() as patched:
        patched.setattr(study_export, "_put", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            write_best(study)
    assert "old" in (folder / "best" / "config.json").read_text()
    write_best(study)
    assert "new" in (folder / "best" / "config.json").read_text()
    assert not list(folder.glob(".best-*"))


def test_a_pareto_front_has_a_folder_per_member(folder):
    study = small_study(folder, objectives=TWO)
    for values in ((3.0, 1.0), (5.0, 2.0), (2.0, 3.0)):
        end(study, *values)
    write_run(study, 0)
    best = write_best(study)
    assert sorted(p.name for p in best.iterdir()) == ["0000", "0001"]
    assert (
        (best / "0001" / "next.txt")
        .read_text()
        .startswith("# the run of trial 1 is not in this folder")
    )


def test_an_infeasible_trial_is_never_best(folder):
    study = small_study(folder)
    end(study, 0.1, broken=1.0)
    (folder / "best").mkdir()  # of a time when it had one
    assert write_best(study) is None
    assert not (folder / "best").exists()
    page = make_report(study, draw_all(study))
    assert "None: no trial completed within the constraints" in page
    assert "ckpt=" not in page


def test_wandb_holds_the_study(folder):
    study = every_fate(folder)
    log_study(study, Wandb(kind="wandb", project="hft-test", entity="", mode="offline"), tags=["t"])
    run = read_offline(folder)
    assert (run.ids, run.group, run.tags) == (["maker_v1"], "maker_v1", ["t", "sweep=asha"])
    assert run.config["sweep"]["kind"] == "asha"
    assert run.summary["sweep/best"] == "maker_v1/0001"
    assert run.summary["best/model.channels"] == 8
    assert run.summary["sweep/retried"] == 2
    assert len(run.tables["sweep/trials"]["data"]) == 10
    assert set(run.images) == {"sweep/history", "sweep/slices", "sweep/intermediate_values"}
    assert run.pages["sweep/report"].count("data:image/png") == 3


def test_other_loggers(folder):
    study = every_fate(folder)
    before = sorted(folder.iterdir())
    log_study(study, NoLogger(kind="none"))
    assert sorted(folder.iterdir()) == before
    log_study(study, Csv(kind="csv"))
    assert "sweep/best,maker_v1/0001" in (folder / "summary.csv").read_text()
    assert (folder / "tables" / "sweep-trials.csv").exists()
    assert (folder / "figures" / "sweep-history.png").exists()
