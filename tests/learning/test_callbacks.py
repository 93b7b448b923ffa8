"""Our callbacks show what they say and change no bit of a training."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from hft.dataset.splits import ROLES
from hft.learning.callbacks import KINDS, Monitor, Profiler, ProgressBar, asked_callbacks
from hft.learning.dense import dense_logits
from hft.learning.insight import gate_activity, gated_blocks
from hft.learning.trainer import CALLBACK_NAMES, TrainingError
from hft.metrics import find
from tests.learning.planted import TCN, adamw, cpu, planted, run

ALL = list(CALLBACK_NAMES)
MONITORS = ["lr_monitor", "gate_monitor"]
SCHEDULE = dict(schedule="one_cycle", warmup=0.2)


def curves(folder, dataset, role_T, **changes):
    """(classifier, result, metrics of each epoch as `on_epoch` gets them)."""
    seen = []

    def on_epoch(epoch, metrics):
        seen.append(metrics)
        return False

    optim = adamw(**SCHEDULE)
    classifier, result = run(
        folder, dataset, role_T, model=TCN, optim=optim, on_epoch=on_epoch, **changes
    )
    return classifier, result, seen


def test_yaml_names_monitors_and_the_profiler():
    assert list(KINDS) == MONITORS
    assert all(issubclass(kind, Monitor) for kind in KINDS.values())
    for profiled in (cpu(callbacks=ALL, ema=0.9), cpu(callbacks=MONITORS, profile=True)):
        asked = asked_callbacks(profiled)
        assert [type(c) for c in asked] == [*(KINDS[name] for name in MONITORS), Profiler]
    assert asked_callbacks(cpu()) == []


def test_without_early_stopping_every_epoch_runs(tmp_path):
    dataset, role_T, _ = planted(1500)
    changes = dict(model=TCN, optim=adamw(lr=0.03), epochs=12, patience=1)
    _, stopped = run(tmp_path / "a", dataset, role_T, **changes)
    _, whole = run(tmp_path / "b", dataset, role_T, callbacks=[], **changes)
    assert (stopped.stopped, whole.stopped) == ("patience", "epochs")
    n = len(stopped.history)
    assert n < len(whole.history) == 12
    assert whole.history[:n] == stopped.history


def test_callbacks_change_no_bit_and_show_curves(tmp_path):
    dataset, role_T, _ = planted(1500)
    changes = dict(epochs=2, ema=0.9)
    _, plain, without = curves(tmp_path / "a", dataset, role_T, **changes)
    _, result, seen = curves(tmp_path / "b", dataset, role_T, callbacks=ALL, **changes)
    assert (tmp_path / "b" / "profile.txt").is_file()
    weights = [(tmp_path / k / "weights.safetensors").read_bytes() for k in "ab"]
    assert weights[0] == weights[1]
    assert result.history == plain.history  # what they measured is not in it
    names = {"train/lr_min", "train/lr_max"}
    names |= {f"tune/block-{b}/{name}" for b in (0, 1) for name in ("gate", "gate_spread")}
    assert [set(metrics) - set(before) for metrics, before in zip(seen, without, strict=True)] == [
        names,
        names,
    ]
    assert all(find(name) is not None for name in names)


def test_the_learning_rates_of_an_epoch(tmp_path):
    dataset, role_T, _ = planted()  # 7 steps an epoch
    _, _, seen = curves(tmp_path, dataset, role_T, callbacks=["lr_monitor"])
    rates = [adamw(**SCHEDULE).lr_at(step, 21) for step in range(21)]
    for epoch, metrics in enumerate(seen):
        of_epoch = rates[7 * epoch : 7 * epoch + 7]
        assert metrics["train/lr_max"] == max(of_epoch)
        assert metrics["train/lr_min"] == min(of_epoch)
    assert seen[0]["train/lr_max"] > seen[0]["train/lr"]  # the peak lies inside the first epoch


def test_the_gates_are_those_of_the_weights_that_were_scored(tmp_path):
    dataset, role_T, _ = planted()
    classifier, _, (metrics,) = curves(
        tmp_path, dataset, role_T, epochs=1, ema=0.5, callbacks=["gate_monitor"]
    )
    x_PF = np.pad(dataset.x_TF, ((12, 0), (0, 0)), constant_values=np.nan)
    seen_PF = classifier.scale(torch.from_numpy(x_PF))
    rows_T = role_T == ROLES.index("tune")
    assert torch.isfinite(dense_logits(classifier.network, seen_PF, rows_T)).any()
    gates_LC = gate_activity(classifier.network, seen_PF, rows_T)[:, 0]
    assert len(gates_LC) == len(gated_blocks(classifier)) == 2
    for block, gates_C in enumerate(gates_LC):
        assert metrics[f"tune/block-{block}/gate"] == pytest.approx(gates_C.mean(), rel=1e-9)
        assert metrics[f"tune/block-{block}/gate_spread"] == pytest.approx(gates_C.std(), rel=1e-9)


def test_a_model_without_gates_has_none_to_monitor(tmp_path):
    dataset, role_T, _ = planted()
    with pytest.raises(TrainingError, match=r"gate_monitor has nothing to show.*model=se_tcn"):
        run(tmp_path, dataset, role_T, callbacks=["gate_monitor"])


@pytest.mark.parametrize("width", [80, 50])
def test_the_progress_bar_keeps_to_one_line(width):
    bar = ProgressBar()
    bar.measured = {"loss": 0.48812, "tune/calibration_error": 0.889}
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    progress = Progress(*bar.configure_columns(None), console=console)
    progress.add_task("Epoch 19/19", total=12345, completed=12000)
    lines = console.render_lines(progress.make_tasks_table(progress.tasks))
    (shown,) = ["".join(segment.text for segment in line) for line in lines]
    assert "loss 0.4881" in shown
    assert ("Epoch 19/19" in shown) == (width == 80)
