"""What every baseline keeps: fits on the given rows alone, repeats by seed, and comes back from its
folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import yaml

from hft.spec import Kind, Room, Spec, parse
from tests.learning.baseline.planted import TRAIN_T, TUNE_T, make_dataset

SHIPPED = sorted(Path("conf/baseline").glob("*.yaml"))


class Config(Spec):
    baseline: Annotated[Kind, Room("hft.learning.baseline")]


@pytest.fixture(params=SHIPPED, ids=lambda path: path.stem)
def spec(request):
    plain = yaml.safe_load(request.param.read_text())
    assert plain["kind"] == request.param.stem
    return parse(Config, {"baseline": plain}).baseline


def test_every_kind_ships_its_yaml():
    assert (
        {path.stem for path in SHIPPED}
        == set(Room("hft.learning.baseline").specs())
        == {"none", "gbdt"}
    )


def test_probabilities_where_every_feature_is_known(spec, tmp_path):
    dataset = make_dataset()
    fitted = spec.fit(dataset, TRAIN_T, TUNE_T, seed=0, folder=tmp_path)
    if fitted is None:
        assert spec.load(tmp_path, dataset.names) is None
        assert not list(tmp_path.iterdir())
        return
    p_TC = fitted.predict(dataset)
    assert p_TC.shape == (len(dataset.y_T), 3)
    assert p_TC.dtype == np.float64
    assert np.array_equal(np.isnan(p_TC).any(1), ~dataset.valid_T)
    known = p_TC[dataset.valid_T]
    np.testing.assert_allclose(known.sum(1), 1)
    assert (known > 0).all()


def test_same_seed_same_bits_and_back_from_the_folder(spec, tmp_path):
    dataset, predictions = make_dataset(), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        fitted = spec.fit(dataset, TRAIN_T, TUNE_T, seed=seed, folder=tmp_path / name)
        loaded = spec.load(tmp_path / name, dataset.names)
        if fitted is None:
            return
        predictions.append(fitted.predict(dataset))
        np.testing.assert_array_equal(loaded.predict(dataset), predictions[-1])
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert not np.array_equal(predictions[0], predictions[2], equal_nan=True)


def test_rows_outside_train_and_tune_change_nothing(spec, tmp_path):
    dataset = make_dataset()
    fitted = spec.fit(dataset, TRAIN_T, TUNE_T, seed=0, folder=tmp_path)
    if fitted is None:
        return
    others, x_TF, y_T = ~(TRAIN_T | TUNE_T), dataset.x_TF.copy(), dataset.y_T.copy()
    x_TF[others], y_T[others] = 1e6, 0
    changed = dataclasses.replace(dataset, x_TF=x_TF, y_T=y_T)
    again = spec.fit(changed, TRAIN_T, TUNE_T, seed=0, folder=tmp_path)
    np.testing.assert_array_equal(again.predict(dataset), fitted.predict(dataset))
