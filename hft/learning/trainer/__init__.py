"""How long, in what portions and on what device a model is trained.

To add a trainer: `hft/learning/trainer/<kind>.py` with a subclass of TrainerSpec and
`conf/trainer/<kind>.yaml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field, field_validator, model_validator

from hft.metrics import METRICS, lower_is_better, metric
from hft.spec import Kind, Role, UserError, did_you_mean

# A metric that is neither better high nor low cannot choose an epoch.
MONITORS = [
    metric("tune", m.name) for m in METRICS.values() if "tune" in m.curves and m.better != "neither"
]
CallbackName = Literal["early_stopping", "ema", "lr_monitor", "gate_monitor", "profiler"]
CALLBACK_NAMES = get_args(CallbackName)


class TrainingError(UserError):
    """A training that cannot start or go on."""


class TrainerSpec(Kind):
    epochs: int = Field(ge=1, le=100_000, description="passes over the training rows at most")
    chunk: int = Field(ge=1, le=1_000_000, description="bars that one chunk predicts")
    batch_chunks: int = Field(
        ge=1, le=65_536, description="chunks that pass through the network together"
    )
    accumulate: int = Field(
        ge=1,
        le=4096,
        description="passes whose gradients make one step; examples per step = chunk * "
        "batch_chunks * accumulate",
        # `before`, here and below: what a stored run had before the field existed (docs/design.md
        # 3).
        json_schema_extra={"before": 1},
    )
    clip_norm: float = Field(gt=0, description="largest norm of the gradient")
    ema: float = Field(
        ge=0,
        lt=1,
        description="decay per step of the averaged weights that are evaluated and saved (0.999); "
        "0 averages nothing",
        json_schema_extra={"before": 0.0},
    )
    precision: Literal["fp32", "bf16"] = Field(
        description="of the forward pass in training; evaluation and weights are fp32",
        json_schema_extra={"before": "fp32"},
    )
    compile: bool = Field(
        description="torch.compile the training pass: up to a minute at the start, for nothing on "
        "a CPU",
        json_schema_extra={"before": False},
    )
    patience: int = Field(
        ge=1, description="epochs without a better `monitor` before training stops"
    )
    monitor: str = Field(
        description="tune metric that chooses the best epoch, such as tune/log_loss"
    )
    # Role.SHOWN changes no number: runs that differ in it alone count as the same.
    save_every_s: Annotated[float, Role.SHOWN] = Field(
        ge=0,
        description="seconds of training that a kill may cost at most",
        json_schema_extra={"before": 60.0},
    )
    limit_batches: int = Field(
        ge=0, description="steps per epoch at most; 0 for all rows", json_schema_extra={"before": 0}
    )
    overfit: bool = Field(
        description="every epoch repeats the batches of the first: can the model learn them by "
        "heart?",
        json_schema_extra={"before": False},
    )
    profile: Annotated[bool, Role.SHOWN] = Field(
        description="write profile.txt, where the time of the first steps goes",
        json_schema_extra={"before": False},
    )
    callbacks: tuple[CallbackName, ...] = Field(
        description="what acts beside the steps: early_stopping (after `patience`), ema (with the "
        "decay `ema`), profiler (as `profile`), and curves: lr_monitor, gate_monitor",
        json_schema_extra={"before": ["early_stopping"]},
    )
    threads: int = Field(
        ge=0,
        le=1024,
        description="CPU threads; 0 leaves it to torch (OMP_NUM_THREADS or the cores)",
    )
    progress: Annotated[bool, Role.SHOWN] = Field(description="show a progress bar")

    @field_validator("monitor")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in MONITORS:
            hint = did_you_mean(name, MONITORS) or f"; one of {', '.join(MONITORS)}"
            raise ValueError(f"must be a metric of tune, got {name!r}{hint}")
        return name

    @field_validator("callbacks", mode="before")
    @classmethod
    def _are_ours(cls, names: Any) -> Any:
        # Before pydantic's own check, whose message suggests no near name.
        if not isinstance(names, list | tuple):
            raise ValueError(f"must be a list of names, such as [lr_monitor], got {names!r}")
        # Names first, then set(): a mapping in the list cannot be hashed.
        for name in names:
            if name not in CALLBACK_NAMES:
                known = list(CALLBACK_NAMES)
                hint = did_you_mean(str(name), known) or f"; one of {', '.join(known)}"
                raise ValueError(f"must name callbacks of ours, got {name!r}{hint}")
        if len(set(names)) < len(names):
            raise ValueError(f"must name each callback once, got {', '.join(names)}")
        return tuple(names)

    @model_validator(mode="after")
    def _ema_has_a_decay(self) -> TrainerSpec:
        if "ema" in self.callbacks and not self.ema:
            raise ValueError(
                "callbacks: ema averages with the decay `ema`, which is 0; set trainer.ema=0.999, "
                "or leave ema out"
            )
        return self

    @property
    def stops_early(self) -> bool:
        return "early_stopping" in self.callbacks

    @property
    def profiles(self) -> bool:
        return self.profile or "profiler" in self.callbacks

    @property
    def step_chunks(self) -> int:
        return self.batch_chunks * self.accumulate

    def sign(self) -> int:
        """-1 when a higher `monitor` is better."""
        return 1 if lower_is_better(self.monitor) else -1

    def device(self) -> torch.device:
        raise NotImplementedError

    def scoring_device(self) -> torch.device:
        """Where predictions are made: a run trained on a GPU can be scored without one."""
        return torch.device("cuda" if self.kind == "gpu" and torch.cuda.is_available() else "cpu")
