"""A plain Lightning Trainer with a user's callbacks gives the bits of fit(), or says why not."""

from __future__ import annotations

import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from hft.dataset.splits import ROLES
from hft.learning import module as public
from hft.learning.fit import make_learner
from hft.learning.module import ChunkLoader, TrainingModule
from hft.learning.trainer import TrainingError
from tests.learning.planted import LOSS, TCN, adamw, cpu, fresh, planted, run

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\):FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
]
# Dropout, averaged weights, accumulation and early stopping, on 10 steps an epoch.
HARD = dict(epochs=9, patience=2, chunk=32, batch_chunks=3, accumulate=2, ema=0.9)
QUIET = dict(
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)


def learner_of(dataset, role_T, *, model=TCN, **trainer):
    classifier = fresh(dataset, role_T, model=model)
    specs = dict(loss=LOSS, optim=adamw(lr=0.003), trainer=cpu(**HARD | trainer), seed=0)
    return make_learner(classifier, dataset, role_T, **specs)


def plain_fit(learner, *, callbacks=(), ckpt_path=None, **arguments):
    """As in a notebook; `max_epochs` is more than the learner wants."""
    trainer = lightning.Trainer(**{"max_epochs": 50} | QUIET | arguments, callbacks=[*callbacks])
    trainer.fit(TrainingModule(learner), ChunkLoader(learner), ckpt_path=ckpt_path)
    return trainer


def check_same(learner, expected):
    """Weights, calibration and metrics, to the bit; `expected` is (classifier, result) of fit()."""
    classifier, result = expected
    assert learner.result.history == result.history
    assert learner.result.best_epoch == result.best_epoch
    assert learner.result.stopped == result.stopped
    state = learner.classifier.state_dict()
    assert state.keys() == classifier.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in classifier.state_dict().items())


@pytest.fixture(scope="module")
def market():
    """Labels of tune are noise, so that patience ends a training."""
    dataset, role_T, _ = planted(1500)
    tune_T = role_T == ROLES.index("tune")
    dataset.y_T[tune_T] = np.random.default_rng(2).permutation(dataset.y_T[tune_T])
    return dataset, role_T


@pytest.fixture(scope="module")
def of_fit(market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    return run(folder, *market, model=TCN, optim=adamw(lr=0.003), **HARD)


class Seen(lightning.Callback):
    """What a user's callback finds at each epoch's end."""

    def __init__(self):
        self.epochs, self.batches = [], 0

    def on_train_batch_end(self, *_):
        self.batches += 1

    def on_train_epoch_end(self, trainer, module):
        history = module.learner.result.history
        self.epochs.append((len(history), float(trainer.callback_metrics["tune/log_loss"])))


def test_a_plain_trainer_with_a_users_callback_gives_the_bits_of_fit(
    market, of_fit, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(99)  # the caller's generator plays no part
    learner, seen = learner_of(*market), Seen()
    plain_fit(learner, callbacks=[seen])
    check_same(learner, of_fit)
    history = of_fit[1].history
    assert (of_fit[1].stopped, 1 < len(history) < 9) == ("patience", True)
    assert of_fit[1].best_epoch > 0
    losses = [metrics["tune/log_loss"] for metrics in history]
    assert seen.epochs == [(i + 1, pytest.approx(v, rel=1e-6)) for i, v in enumerate(losses)]
    assert seen.batches == len(history) * learner.n_batches
    assert not learner.classifier.training
    assert not list(tmp_path.iterdir())


def test_monitors_of_the_spec_are_logged_by_a_plain_trainer(market):
    trainer = plain_fit(learner_of(*market, epochs=1, callbacks=["lr_monitor", "gate_monitor"]))
    logged = trainer.callback_metrics
    assert logged["train/lr_max"] == pytest.approx(0.003)
    assert 0 < logged["tune/block-1/gate"] < 1
    assert "train/examples_per_s" in logged


def test_the_example_of_the_page_runs(market, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = public.__doc__.split(":\n\n", 1)[1].split("\n\n`make_learner`")[0]
    dataset, role_T = market
    config = SimpleNamespace(loss=LOSS, optim=adamw(lr=0.003), trainer=cpu(**HARD, progress=False))
    names = {"Mine": Seen, "lightning": lightning, "config": config, "role_T": role_T}
    names |= {"classifier": fresh(dataset, role_T, model=TCN), "dataset": dataset}
    names |= {"make_learner": make_learner, "ChunkLoader": ChunkLoader}
    exec("from pathlib import Path\n" + textwrap.dedent(example), names | vars(public))
    assert "tune/log_loss" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_early_stopping_of_lightning_is_not_undone(market, of_fit):
    learner = learner_of(*market, patience=9)
    stop = EarlyStopping(monitor="tune/log_loss", patience=2)
    plain_fit(learner, callbacks=[stop])
    assert learner.result.history == of_fit[1].history
    assert learner.result.stopped == "epochs"
    assert stop.stopped_epoch == len(of_fit[1].history) - 1


class StopAt(lightning.Callback):
    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, module, *_):
        trainer.should_stop = module.learner.step == self.batch


def test_a_stop_in_the_middle_of_an_epoch_counts_no_epoch(market, of_fit):
    learner = learner_of(*market)
    plain_fit(learner, callbacks=[StopAt(learner.n_batches + 3)])
    assert learner.result.history == of_fit[1].history[:1]
    assert (learner.epoch, learner.batch) == (1, 3)
    state = learner.classifier.state_dict()
    assert all(torch.equal(state[name], value) for name, value in learner.best_state.items())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("where", ["mid_epoch", "last_batch", "end_of_epoch"])
def test_checkpoints_of_lightning_resume_to_the_same_bits(market, of_fit, tmp_path, where):
    def keep():
        often = {"every_n_epochs": 1} if where == "end_of_epoch" else {"every_n_train_steps": 1}
        return ModelCheckpoint(tmp_path, save_top_k=-1, filename="{step}", **often)

    first = learner_of(*market)
    step = first.n_batches + (3 if where == "mid_epoch" else 0)
    plain_fit(first, callbacks=[keep(), StopAt(step)], enable_checkpointing=True)
    assert first.step == step
    learner = learner_of(*market)
    path = tmp_path / f"step={step}.ckpt"
    plain_fit(learner, callbacks=[keep()], enable_checkpointing=True, ckpt_path=path)
    check_same(learner, of_fit)


def test_a_checkpoint_of_another_module_is_refused(market):
    module = TrainingModule(learner_of(*market))
    with pytest.raises(TrainingError, match="a checkpoint that no TrainingModule wrote; leave"):
        module.on_load_checkpoint({"state_dict": {}, "epoch": 3})


def test_a_second_fit_is_refused(market):
    learner = learner_of(*market, epochs=1)
    module = TrainingModule(learner)
    for refused in (False, True):
        trainer = lightning.Trainer(**QUIET, max_epochs=2)
        if refused:
            with pytest.raises(TrainingError, match=r"fitted before, .* a fresh classifier"):
                trainer.fit(module, ChunkLoader(learner))
        else:
            trainer.fit(module, ChunkLoader(learner))
    with pytest.raises(TrainingError, match="fitted before"):
        plain_fit(learner)
    assert len(learner.result.history) == 1


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (EMAWeightAveraging(), "EMAWeightAveraging has no effect .*trainer.ema"),
        (StochasticWeightAveraging(0.1), "StochasticWeightAveraging has no effect"),
    ],
)
def test_weight_averaging_by_callback_is_refused(market, callback, name):
    with pytest.raises(TrainingError, match=name):
        plain_fit(learner_of(*market), callbacks=[callback])


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit_train_batches": 2},
        {"overfit_batches": 1},
        {"max_steps": 5},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_arguments_that_would_change_the_numbers_in_silence_are_refused(market, arguments):
    (name,) = arguments
    with pytest.raises(TrainingError, match=rf"Trainer: .*{name}.* would change .* leave it out"):
        plain_fit(learner_of(*market), **arguments)


def test_a_loader_of_another_learner_is_refused(market):
    trainer = lightning.Trainer(**QUIET, max_epochs=1)
    with pytest.raises(TrainingError, match="another learner than the module trains; make both"):
        trainer.fit(TrainingModule(learner_of(*market)), ChunkLoader(learner_of(*market)))


class Breaks(lightning.Callback):
    def on_train_epoch_end(self, trainer, module):
        assert torch.get_num_threads() == module.learner.trainer.threads
        assert torch.backends.cudnn.deterministic
        torch.manual_seed(1)
        raise RuntimeError("a user's own fault")


@pytest.mark.parametrize("callbacks", [[], [Breaks()]], ids=["ended", "broken"])
def test_threads_and_generators_are_put_back(market, callbacks):
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    learner = learner_of(*market, epochs=1, threads=threads + 1)
    if callbacks:
        with pytest.raises(RuntimeError, match="a user's own fault"):
            plain_fit(learner, callbacks=callbacks)
    else:
        plain_fit(learner)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(2), expected)
    assert not torch.backends.cudnn.deterministic
