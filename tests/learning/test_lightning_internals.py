"""Each private or fragile name of Lightning that we rely on: a pin that moves one fails here by its
name.
"""

from __future__ import annotations

import logging
import warnings

import pytest
import pytorch_lightning as lightning

from hft.learning import lightning_internals as internals

# Where Slurm is installed, as in CI, a plain Trainer says so.
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")
QUIET = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


@pytest.fixture
def trainer():
    return lightning.Trainer(**QUIET, max_epochs=1, plugins=[internals.local_environment()])


def test_local_environment_is_one_process_within_a_slurm_job(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "2"}.items():
        monkeypatch.setenv(name, value)
    environment = internals.local_environment()
    trainer = lightning.Trainer(**QUIET, max_epochs=1, plugins=[environment])
    assert (trainer.world_size, trainer.global_rank) == (1, 0)


def test_fit_loop_epoch_progress_is_what_current_epoch_counts(trainer):
    assert trainer.current_epoch == 0
    internals.go_on_at(trainer, 3)
    progress = trainer.fit_loop.epoch_progress.current
    assert trainer.current_epoch == 3
    assert (progress.ready, progress.started, progress.processed, progress.completed) == (3,) * 4


def test_fit_loop_restarting_can_be_taken_back(trainer):
    trainer.fit_loop.epoch_progress.current.ready = 1
    trainer.fit_loop.restarting = True
    assert trainer.fit_loop.restarting
    internals.go_on_at(trainer, 0)
    assert not trainer.fit_loop.restarting
    assert not trainer.fit_loop.epoch_loop.restarting


def test_reload_dataloaders_every_n_epochs_can_be_set_late(trainer):
    assert trainer.reload_dataloaders_every_n_epochs == 0
    internals.reload_every_epoch(trainer)
    assert trainer.reload_dataloaders_every_n_epochs == 1


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({}, []),
        ({"precision": "bf16-mixed"}, ["precision"]),
        ({"limit_train_batches": 0.5}, ["limit_train_batches"]),
        ({"overfit_batches": 2}, ["limit_train_batches", "overfit_batches"]),
        ({"max_steps": 9}, ["max_steps"]),
        ({"fast_dev_run": True}, ["fast_dev_run", "max_steps"]),
    ],
    ids=str,
)
def test_attributes_of_the_trainer_say_what_was_given(arguments, found):
    trainer = lightning.Trainer(**QUIET | {"max_epochs": 1} | arguments)
    assert internals.unsupported_settings(trainer) == found


def test_callbacks_of_a_trainer_are_those_it_was_given():
    mine = lightning.Callback()
    found = internals.callbacks_of(lightning.Trainer(**QUIET, max_epochs=1, callbacks=[mine]))
    assert mine in found


def test_callbacks_without_effect_are_the_averaging_ones():
    from pytorch_lightning.callbacks import EMAWeightAveraging

    assert issubclass(EMAWeightAveraging, internals.WITHOUT_EFFECT)
    assert not issubclass(lightning.callbacks.EarlyStopping, internals.WITHOUT_EFFECT)


def test_sigterm_exception_is_a_system_exit():
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    assert internals.is_sigterm(SIGTERMException())
    assert issubclass(SIGTERMException, SystemExit)
    assert not internals.is_sigterm(SystemExit(0))


def test_chatter_is_logged_under_the_name_that_quiet_silences(caplog):
    logging.getLogger(internals.CHATTER).setLevel(logging.INFO)
    lightning.Trainer(**QUIET, max_epochs=1)
    assert {record.name for record in caplog.records} == {internals.CHATTER}
    caplog.clear()
    with internals.quiet():
        lightning.Trainer(**QUIET, max_epochs=1)
        warnings.warn("`isinstance(treespec, LeafSpec)` is", FutureWarning, stacklevel=1)
    assert not caplog.records
    assert logging.getLogger(internals.CHATTER).level == logging.INFO


def test_the_treespec_warning_is_still_lightnings():
    """Once it is gone, the filter in `quiet` goes too."""
    from pytorch_lightning.utilities.combined_loader import CombinedLoader

    with pytest.warns(FutureWarning, match=r"`isinstance\(treespec, LeafSpec\)`"):
        CombinedLoader([[1]], "max_size_cycle")
