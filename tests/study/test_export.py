"""What a study leaves behind: facts of every fate, the best that is allowed, a page that needs
nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from hft.space import Dimension, Space
from hft.study import export as study_report
from hft.study.export import export, log_study, write_best
from hft.study.figures import FIGURES, MAX_PANELS, draw_all, plot_slices
from hft.study.points import points_frame, points_over_seeds
from hft.study.report import data_line, make_report
from hft.study.trials import (
    Labels,
    brief,
    common_cause,
    importances,
    next_lines,
    ranked,
    total,
    trials_frame,
)
from hft.tracking.logger.csv import Csv
from hft.tracking.logger.none import NoLogger
from hft.tracking.logger.wandb import Wandb
from tests.study.small_study import end, every_fate, small_study, write_run
from tests.tracking.wandb_files import read_offline

TWO = ("select/net_bps_day@vip0", "select/turnover_day")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_the_frame_tells_every_fate(folder):
    frame = trials_frame(every_fate(folder))
    assert frame["number"].to_list() == list(range(10))
    assert frame["state"].to_list() == [
        "complete", "complete", "pruned", "retried", "complete",
        "failed", "complete", "running", "retried", "waiting",
    ]  # fmt: skip
    assert frame["select/log_loss"].to_list()[:7] == [0.1, 0.5, 0.95, None, 0.8, None, 0.7]
    assert frame["feasible"].to_list()[:7] == [False, True, None, None, True, None, True]
    assert frame["constraint/select/trades"].to_list()[:4] == [3.0, 0.0, 0.0, None]
    assert frame.schema["model.channels"] == pl.Int64
    assert frame["model.channels"].to_list()[6] is None  # exists for the other model only
    assert frame["model"].to_list()[9] == "mlp"  # a waiting one has what it was enqueued with
    assert frame["retry_of"].to_list() == [*[None] * 4, 3, *[None] * 4, 8]
    assert frame["attempt"].to_list()[4] == 1
    assert frame["folder"].to_list()[0] == "maker_v1/0000"
    assert frame["folder"].to_list()[9] is None
    assert frame["reason"].to_list()[5].endswith("</script>")  # one line of it
    assert frame.schema["started"] == pl.Datetime("us", "UTC")


METRICS = {"select/log_loss": 0.6, "select/mcc": 0.25, "select/net_bps_day@vip0": None}


def test_the_frame_has_the_metrics_of_each_trial(folder):
    study = small_study(folder)
    end(study, 0.6, metrics=METRICS)
    end(study, reason="nan")
    end(study, 0.5, metrics=METRICS | {"select/log_loss": 0.5, "select/net_bps_day@vip0": -3.0})
    frame = trials_frame(study)
    assert frame.columns[2:5] == ["select/log_loss", "select/mcc", "select/net_bps_day@vip0"]
    assert frame["select/log_loss"].to_list() == [0.6, None, 0.5]  # the objective, once
    assert frame["select/mcc"].to_list() == [0.25, None, 0.25]
    assert frame["select/net_bps_day@vip0"].to_list() == [None, None, -3.0]


SEED = Dimension("seed", choices=(1, 2), texts=("1", "2"))
RATE = Dimension("optim.lr", choices=(0.1, 0.2), texts=("0.1", "0.2"))


def test_points_are_means_over_seeds_best_first(folder):
    study = small_study(folder, kind="grid", n_trials=0, space=Space((RATE, SEED)))
    for rate, seed, value in ((0.1, 1, 3.0), (0.1, 2, 5.0), (0.2, 1, 1.0), (0.2, 2, 2.0)):
        metrics = {"select/mcc": value / 10, "select/trades": None if value == 5.0 else 7.0}
        end(study, value, params={"optim.lr": rate, "seed": seed}, metrics=metrics)
    end(
        study, params={"optim.lr": 0.2, "seed": 2}, reason="nan"
    )  # what failed is no part of a mean
    frame = points_frame(study)
    assert frame.columns == [
        "optim.lr", "trials", "select/log_loss", "select/log_loss/sd", "select/mcc",
        "select/mcc/sd", "select/trades", "select/trades/sd",
    ]  # fmt: skip
    assert frame["optim.lr"].to_list() == [0.2, 0.1]
    assert frame["trials"].to_list() == [2, 2]
    assert frame["select/log_loss"].to_list() == [1.5, 4.0]
    assert frame["select/log_loss/sd"].to_list() == pytest.approx([0.5**0.5, 2**0.5])
    assert frame["select/mcc"].to_list() == pytest.approx([0.15, 0.4])
    assert frame["select/trades"].to_list() == [7.0, None]
    written = export(study)
    assert [path.name for path in written] == [
        "results.parquet", "points.parquet", "best", "report.html"
    ]  # fmt: skip
    assert pl.read_parquet(written[1]).equals(frame)
    assert "1.5 ± 0.71" in written[-1].read_text()


@pytest.mark.parametrize(
    ("kind", "space"), [("grid", (RATE,)), ("tpe", (RATE, SEED)), ("grid", (RATE, SEED))]
)
def test_without_seeds_or_trials_there_are_no_points(folder, kind, space):
    study = small_study(folder, kind=kind, n_trials=4, space=Space(space))
    if "seed" not in [d.path for d in space] or kind == "tpe":
        end(study, 1.0, params={"optim.lr": 0.1, "seed": 1})
    assert points_over_seeds(study) == []
    assert points_frame(study).is_empty()
    assert not any(path.name == "points.parquet" for path in export(study))


def test_a_report_of_twenty_parameters_has_the_important_ones_first(folder):
    numbers = [Dimension(f"model.x{k}", low=0.0, high=1.0) for k in range(MAX_PANELS + 2)]
    study = small_study(folder, space=Space(tuple(numbers)))
    for k in range(30):
        noise = {d.path: (k * (7 + i) % 37) / 37 for i, d in enumerate(numbers)}
        end(study, k / 30, params={**noise, "model.x9": k / 30})
    figure = plot_slices(study)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == MAX_PANELS
    assert shown[0].get_title(loc="left") == "model.x9"
    assert figure.get_supxlabel() == "2 less important parameters left out"
    assert figure.get_supylabel() == "select/log_loss"
    rows = make_report(study, {}).split("<tr>")[2:]
    assert all('<td class="t">model.x9=' in row for row in rows)


def test_no_label_is_cut(folder):
    long = ("features_of_a_long_name." * 5, "[ofi,kyle_lambda,amihud,roll,kalman_deviation]", "c")
    name = "features.some_family_with_a_long_name.parameter_of_it"
    choice = Dimension(name, choices=long, texts=long)
    study = small_study(folder, space=Space((choice,)))
    for k in range(6):
        end(study, k / 6, params={name: long[k % 3]})
    figure = plot_slices(study)
    axes = figure.axes[0]
    labels = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert sorted(labels) == sorted(long)
    assert axes.get_title(loc="left").replace("\n", "") == name
    figure.draw_without_rendering()
    page = figure.bbox
    for label in [*axes.get_xticklabels(), axes.title, axes._left_title]:
        box = label.get_window_extent()
        assert box.x0 >= page.x0 - 1, label
        assert box.y0 >= page.y0 - 1, label
        assert box.x1 <= page.x1 + 1, label


def test_an_empty_study_has_a_frame_with_its_columns(folder):
    frame = trials_frame(small_study(folder))
    assert len(frame) == 0
    assert {"number", "select/log_loss", "model.channels", "reason"} <= set(frame.columns)


def test_the_order_puts_what_may_be_used_first(folder):
    assert [t.number for t in ranked(every_fate(folder))] == [1, 6, 4, 0, 2, 5]


def test_a_larger_value_is_first_where_it_is_better(folder):
    study = small_study(folder, objectives=TWO[:1])
    for value in (1.0, 3.0, 2.0):
        end(study, value)
    assert [t.values[0] for t in ranked(study)] == [3.0, 2.0, 1.0]


def test_labels_leave_out_what_all_share(folder):
    study = every_fate(folder)
    trials = study.trials()
    labels = Labels(study, trials[:2])
    assert labels(trials[1]) == "model.channels=8 optim.lr=0.01235"
    assert Labels(study, trials[:1])(trials[0]).startswith(
        "model=tcn"
    )  # alone, nothing is shared yet


@pytest.mark.parametrize(
    ("dimension", "value", "shown"),
    [
        ({"low": 1e-5, "high": 1.0}, 0.0014463729103746, "0.001446"),
        ({"low": 1e-5, "high": 1.0}, 1.2345678e-5, "1.235e-05"),
        ({"low": 0.0, "high": 1e6}, 25043.7218, "25044"),
        ({"low": 0, "high": 10**6, "integer": True}, 123456, "123456"),
        ({"low": 0.0, "high": 1.0, "step": 0.1}, 0.1 + 0.2, "0.3"),
        ({"low": 1000.0, "high": 2000.0, "step": 0.5}, 1000.5, "1000.5"),
        ({"choices": (0.123456789, 1), "texts": ("0.123456789", "1")}, 0.123456789, "0.123456789"),
    ],
)
def test_what_is_drawn_has_four_digits_and_what_was_typed_all(dimension, value, shown):
    assert brief(Dimension("optim.lr", **dimension), value) == shown


def test_importances_find_what_matters(folder):
    space = Space((Dimension("a", low=0.0, high=1.0), Dimension("b", low=0.0, high=1.0)))
    study = small_study(folder, space=space)
    for k in range(20):
        end(study, k / 20, params={"a": (k * 7 % 20) / 20, "b": k / 20})
        assert (importances(study) == {}) == (k < 9)
    shares = importances(study)
    assert shares["b"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_the_total_is_that_of_the_latest_call(folder):
    study = small_study(folder, n_trials=5)
    assert total(study) == 5
    study.optuna.set_user_attr("n_trials", 8)
    assert total(study) == 8
    space = Space((Dimension("seed", choices=(1, 2, 3), texts=("1", "2", "3")),))
    totals = [
        total(small_study(folder.parent / f"g{n}", kind="grid", n_trials=n, space=space))
        for n in (0, 2, 7)
    ]
    assert totals == [3, 2, 3]


def test_reasons_that_differ_in_numbers_are_one_cause():
    assert (
        common_cause(["nan at step 12", "no data", "nan at step 3.5"]) == "2 of 3: nan at step 12"
    )
    assert common_cause([]) == ""


def test_the_lines_to_paste_survive_a_shell(folder):
    study = every_fate(folder)
    assert next_lines(study, study.trials()[1]) == [
        "python backtest.py ckpt=maker_v1/0001",
        "python train.py experiment=smoke 'tags=[a,b]' model=tcn model.channels=8 "
        "optim.lr=0.0123456789 seed=7",
    ]


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
        monkeypatch.setattr(
            study_report, "RENAME_EXCHANGE", 2**20
        )  # a flag that no file system knows
    study = every_fate(folder)
    write_run(study, 1, note="old")
    write_best(study)
    (study.trial_folder(1) / "config.json").write_text('{"note": "new"}')
    with monkeypatch.context() as patched:
        patched.setattr(study_report, "_put", lambda *_: (_ for _ in ()).throw(SystemExit))
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


def test_the_page_needs_nothing_else_and_trusts_nobody(folder):
    study = every_fate(folder)
    results, report = export(study)[0], export(study)[-1]
    assert pl.read_parquet(results).equals(trials_frame(study))
    page = report.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "6 of 20 trials: 4 complete, 1 pruned, 1 failed; 2 retried, 1 running, 1 waiting" in page
    assert "data=synthetic bars=tick" in page
    assert "model=*" in data_line(study)
    assert "Most frequent, 1 of 3: its worker died" in page
    assert "Importances need 10 complete trials, there are 4." in page
    assert page.count("data:image/png") == 3  # history, slices, intermediate values


@pytest.mark.parametrize("objectives", [("select/log_loss",), TWO])
def test_figures_of_a_conditional_space(folder, objectives):
    study = small_study(folder, objectives=objectives)
    for k in range(24):
        model = {"model": "tcn", "model.channels": 4 + k} if k % 2 else {"model": "mlp"}
        end(
            study,
            *[float(k), float(-k)][: len(objectives)],
            params={**model, "optim.lr": 1e-3 * 1.2**k, "seed": 7},
        )
    drawn = draw_all(study)
    assert list(drawn) == list(FIGURES)
    texts = {title: figure for title, figure in drawn.items() if isinstance(figure, str)}
    assert texts == {"Intermediate values": ""} | (
        {"Pareto front": ""} if len(objectives) == 1 else {}
    )
    axes = drawn["Importances"].axes[0]
    shares = dict(
        zip([label.get_text() for label in axes.get_yticklabels()], axes.patches, strict=False)
    )
    assert shares["seed"].get_width() == 0  # a constant
    assert shares["optim.lr"].get_width() > 0


@pytest.mark.parametrize("ends", [
    [], [()], [(1.0,)], [(1.0,), (2.0,)], [(1.0,)] * 12, [(float("inf"),)] * 12,
], ids=["none", "failed", "one", "two", "alike", "not finite"])  # fmt: skip
@pytest.mark.parametrize("kind", ["tpe", "asha"])
def test_a_study_of_any_shape_has_a_report(folder, ends, kind):
    study = small_study(folder, kind=kind)
    for values in ends:
        end(study, *values, reason="x")
    check_report(study)


def check_report(study):
    drawn = draw_all(study)
    assert not [
        text for text in drawn.values() if isinstance(text, str) and "cannot be drawn" in text
    ]
    assert make_report(study, drawn).endswith("</html>\n")


def test_a_report_without_parameters_and_one_of_a_trial_pruned_at_once(folder):
    study = small_study(folder, space=Space(()))
    for _ in range(12):
        end(study, 1.0, params={})
    check_report(study)
    study = small_study(folder.parent / "other", kind="asha")
    end(study, status="pruned")
    end(study, 1.0)
    check_report(study)


def test_a_drawing_that_fails_is_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(FIGURES, "History", lambda study: 1 / 0)
    drawn = draw_all(small_study(folder))
    assert drawn["History"] == "It cannot be drawn: ZeroDivisionError: division by zero"


def test_nothing_is_drawn_through_pyplot():
    source = (Path(study_report.__file__).parent / "figures.py").read_text()
    assert "import matplotlib.pyplot" not in source


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
