"""The exit status of an interruption, and a signal that comes when there is nothing left to cut.

tests/runs/test_resume.py interrupts trainings in their middle.
"""

from __future__ import annotations

import os
import signal

import pytest

from hft.learning.interruption import Interrupted, Keeper
from hft.learning.learner import Learner
from tests.learning.planted import planted, run


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_exit_status_is_that_of_the_signal(number, status):
    error = Interrupted(number, "at epoch 1")
    assert error.exit_status == status
    assert str(error) == f"interrupted by {number.name} at epoch 1"


def test_a_signal_during_the_last_save_ends_the_process_and_loses_nothing(tmp_path, monkeypatch):
    dataset, role_T, _ = planted()
    save = Keeper.save

    def save_and_signal(keeper):
        save(keeper)
        if keeper.learner.is_done:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", save_and_signal)
        with pytest.raises(Interrupted, match="SIGTERM at epoch 2, batch 0 of 8"):
            run(tmp_path, dataset, role_T, epochs=2)
    monkeypatch.setattr(Learner, "begin_step", lambda learner: pytest.fail("trained again"))
    _, result = run(tmp_path, dataset, role_T, epochs=2, resume=True)
    assert len(result.history) == 2
    assert (tmp_path / "weights.safetensors").is_file()
