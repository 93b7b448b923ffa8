"""A grid over seeds: means and deviations per point, best first."""

from __future__ import annotations

import polars as pl
import pytest

from hft.space import Dimension, Space
from hft.study.export import export
from hft.study.points import points_frame, points_over_seeds
from tests.study.small_study import end, small_study

SEED = Dimension("seed", choices=(1, 2), texts=("1", "2"))
RATE = Dimension("optim.lr", choices=(0.1, 0.2), texts=("0.1", "0.2"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


def test_points_are_means_over_seeds_best_first(folder):
    study = small_study(folder, kind="grid", n_trials=0, space=Space((RATE, SEED)))
    for rate, seed, value in ((0.1, 1, 3.0), (0.1, 2, 5.0), (0.2, 1, 1.0), (0.2, 2, 2.0)):
        metrics = {"select/mcc": value / 10, "select/trades": None if value == 5.0 else 7.0}
        end(study, value, params={"optim.lr": rate, "seed": seed}, metrics=metrics)
    # A trial that failed is no part of a mean.
    end(study, params={"optim.lr": 0.2, "seed": 2}, reason="nan")
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
