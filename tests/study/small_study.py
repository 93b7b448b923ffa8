"""Small studies whose trials end in every way, through claims and storage reports: no training, no
engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hft.space import Dimension, Space
from hft.study.claims import claim, release, settle
from hft.study.optuna_internals import trial_id
from hft.study.outcome import Outcome, Status
from hft.study.study import Study, create_study
from hft.study.sweep import SweepSpec
from hft.study.sweep.asha import Asha
from hft.study.sweep.grid import Grid
from hft.study.sweep.tpe import Tpe

SPACE = Space(
    (
        Dimension("model", choices=("tcn", "mlp"), texts=("tcn", "mlp")),
        Dimension("model.channels", low=4, high=64, integer=True, when=(("model", ("tcn",)),)),
        Dimension("optim.lr", low=1e-4, high=1e-1, log=True),
        Dimension("seed", choices=(7,), texts=("7",)),
    )
)
POINT = {"model": "tcn", "model.channels": 8, "optim.lr": 0.01, "seed": 7}
BASE = {
    "data": {"kind": "synthetic"},
    "bars": {"kind": "tick", "size": 20},
    "model": {"kind": "tcn"},
}
COMMON = {
    "study": "",
    "timeout": "",
    "seed": 1,
    "max_retry": 1,
    "constraints": {},
    "enqueue": (),
    "space": {},
}
MINE = "me"  # the driver of all trials: to itself it is alive without a lease


def make_sweep(kind: str, **fields: Any) -> SweepSpec:
    fields = COMMON | fields
    if kind == "grid":
        return Grid(kind="grid", **fields)
    if kind == "asha":
        return Asha(kind="asha", n_startup=4, min_epochs=1, reduction_factor=2, **fields)
    return Tpe(kind="tpe", n_startup=4, **fields)


def small_study(
    folder: Path,
    *,
    objectives=("select/log_loss",),
    kind="tpe",
    n_trials=20,
    space=SPACE,
    storage="journal",
) -> Study:
    conf = folder.parent / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "train.yaml").write_text("seed: 7\n")
    sweep = make_sweep(kind, n_trials=n_trials, objectives=objectives, storage=storage)
    return create_study(
        folder,
        sweep=sweep,
        space=space,
        base=BASE,
        conf=conf,
        overrides=["experiment=smoke", "tags=[a,b]"],
    )


def begin(
    study: Study, params: dict[str, Any] | None = None, *, steps: dict[int, float] | None = None
) -> int:
    """A trial of `params`, what they leave out drawn, at work and with what it reported so far."""
    place = study.counts().points
    ahead = [{}] * place
    taken = claim(
        study, driver=MINE, points=[*ahead, POINT if params is None else params], total=place + 1
    )
    storage, trial = study.address.open(), study.trials()[taken.number]
    for step, value in (steps or {}).items():
        storage.set_trial_intermediate_value(trial_id(trial), step, value)
    return taken.number


def end(
    study: Study,
    *values: float,
    params=None,
    status="complete",
    steps=None,
    broken=0.0,
    metrics=None,
    reason="",
    number=None,
) -> int:
    """A trial that began, or `number`, which did before, with its outcome; without values it
    failed.
    """
    number = begin(study, params, steps=steps) if number is None else number
    failed = status == "complete" and not values
    outcome = Outcome(
        status=Status.FAILED if failed else Status(status),
        values=values or None,
        constraints={} if failed else {"select/trades": broken},
        metrics=metrics or {},
        reason=reason,
    )
    assert settle(study, number, outcome)
    return number


def every_fate(folder: Path, **changes: Any) -> Study:
    """0 best but infeasible, 1 best, 2 pruned, 3 retried by 4, 5 finally failed, 6 without some
    parameters, 7 running, 8 retried by 9, which waits.
    """
    study = small_study(folder, **{"kind": "asha", **changes})
    end(study, 0.1, params=POINT | {"model.channels": 4}, broken=3.0)
    end(study, 0.5, params=POINT | {"optim.lr": 0.0123456789}, steps={0: 0.9, 1: 0.5})
    end(
        study,
        status="pruned",
        params=POINT | {"model.channels": 16, "optim.lr": 0.1},
        steps={0: 0.95},
    )
    assert release(study, begin(study), "its worker died: exit code -9", counted=True)
    end(study, 0.8)
    end(study, reason="loss is nan at step 12 <script>alert(1)</script>\nmore")
    end(study, 0.7, params={"model": "mlp", "optim.lr": 0.02, "seed": 7})
    begin(study, POINT | {"model.channels": 32}, steps={3: 0.66})
    assert release(
        study, begin(study, {"model": "mlp", "optim.lr": 0.03}), "stopped by SIGTERM", counted=False
    )
    return study


def write_run(study: Study, number: int, *, note: str = "") -> Path:
    """What a finished trial leaves, as far as best/ takes it, and what it does not."""
    folder = study.trial_folder(number)
    for seed in (7, 8):
        unit = folder / "fold-0" / f"seed-{seed}"
        unit.mkdir(parents=True)
        (unit / "weights.safetensors").write_bytes(b"w" * seed)
        (unit / "strategy.json").write_text("{}")
        (unit / "last.ckpt").write_bytes(b"big")
    (folder / "config.json").write_text(json.dumps({"config": {"note": note}}))
    (folder / "state.json").write_text('{"state": "done"}')
    return folder


def wide_study(folder: Path) -> Study:
    """Fifteen numbers, of which `model.x9` alone matters, and a choice too long for a column;
    thirty trials.
    """
    choice = Dimension("features", choices=("[a,b]", "c" * 40), texts=("[a,b]", "c" * 40))
    numbers = [Dimension(f"model.x{k}", low=0.0, high=1.0) for k in range(15)]
    study = small_study(folder, space=Space((choice, *numbers)))
    for k in range(30):
        noise = {d.path: (k * (7 + i) % 30) / 30 + 1 / 70 for i, d in enumerate(numbers)}
        features = ("[a,b]", "c" * 40)[k % 2]
        end(study, k / 30, params={"features": features, **noise, "model.x9": k / 30})
    return study
