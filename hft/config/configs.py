"""TrainConfig and BacktestConfig, whose fields stand in the order of the data's way.

A field with a Room is a choice among our kinds; a Role says which fields change no number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from hft.spec import Kind, Role, Room, Spec, did_you_mean
from hft.trading.fees import FeeSchedule

if TYPE_CHECKING:
    from hft.dataset.features import FeatureSpec
    from hft.dataset.labels import LabelSpec
    from hft.dataset.splits import SplitSpec
    from hft.dataset.transforms import TransformSpec
    from hft.learning.baseline import BaselineSpec
    from hft.learning.loss import LossSpec
    from hft.learning.model import ModelSpec
    from hft.learning.optim import OptimSpec
    from hft.learning.trainer import TrainerSpec
    from hft.market.bars import BarSpec
    from hft.market.data import DataSpec
    from hft.tracking.logger import LoggerSpec
    from hft.trading.execution import ExecutionSpec
    from hft.trading.strategy import StrategySpec
else:
    # Importing the rooms takes seconds (torch, polars, numba). `parse` narrows each field to the
    # class of its kind, and imports that module alone.
    FeatureSpec = LabelSpec = SplitSpec = TransformSpec = BaselineSpec = LossSpec = Kind
    ModelSpec = OptimSpec = TrainerSpec = BarSpec = DataSpec = LoggerSpec = Kind
    ExecutionSpec = StrategySpec = Kind

# Money for sweeps that vary data, bars, labels or splits, across which log loss does not compare
# (docs/design.md 6).
OBJECTIVES = ("select/log_loss", "select/net_bps_day@<schedule>")


class Paths(Spec):
    runs: str = Field(description="folder that holds one folder per run")
    sweeps: str = Field(
        description="folder that holds one folder per sweep, with a run folder per trial"
    )
    cache: str = Field(description="folder of the stage cache; safe to delete")


class _Config(Spec):
    """What training and scoring share."""

    seed: int = Field(ge=0, lt=2**31, description="seed of everything random in the run")
    tags: Annotated[tuple[str, ...], Role.SHOWN] = Field(description="words to find the run by")
    paths: Annotated[Paths, Role.PLACE]


class TrainConfig(_Config):
    seeds: int = Field(
        ge=1,
        le=1000,
        description="seeds that the run trains each fold with: seed .. seed + seeds - 1",
        # What runs stored without the field did (docs/design.md 3).
        json_schema_extra={"before": 1},
    )
    objective: str = Field(
        description=f"what the run reports and a sweep maximises: {' or '.join(OBJECTIVES)}"
    )
    min_trades: int = Field(
        ge=1, description="trades on select below which a gain does not count in the objective"
    )
    money_every: int = Field(
        ge=0,
        description="epochs between two looks at what select would earn, as a curve; 0: none",
        json_schema_extra={"before": 0},
    )
    latency_ms: float = Field(
        ge=0, description="from decision to market, ms; one number for labels and execution"
    )
    experiment: Annotated[str, Role.SHOWN] = Field(
        description="name of the experiment it was composed from, empty for none; Hydra's choice",
        json_schema_extra={"before": ""},
    )
    show_config: Annotated[bool, Role.SHOWN] = Field(
        description="print the composed config as a tree before the run"
    )
    data: Annotated[DataSpec, Room("hft.market.data")]
    bars: Annotated[BarSpec, Room("hft.market.bars")]
    features: Annotated[dict[str, FeatureSpec], Room("hft.dataset.features", families=True)] = (
        Field(min_length=1)
    )
    labels: Annotated[LabelSpec, Room("hft.dataset.labels")]
    splits: Annotated[SplitSpec, Room("hft.dataset.splits")]
    transforms: Annotated[dict[str, TransformSpec], Room("hft.dataset.transforms")]
    model: Annotated[ModelSpec, Room("hft.learning.model")]
    loss: Annotated[LossSpec, Room("hft.learning.loss")]
    baseline: Annotated[BaselineSpec, Room("hft.learning.baseline")] = Field(
        json_schema_extra={"before": {"kind": "none"}}
    )
    optim: Annotated[OptimSpec, Room("hft.learning.optim")]
    trainer: Annotated[TrainerSpec, Room("hft.learning.trainer")]
    strategy: Annotated[StrategySpec, Room("hft.trading.strategy")]
    execution: Annotated[ExecutionSpec, Room("hft.trading.execution")]
    # No Room: every schedule is of the one class, and only its numbers are chosen.
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[LoggerSpec, Room("hft.tracking.logger"), Role.SHOWN]

    @model_validator(mode="after")
    def _one_latency(self) -> TrainConfig:
        # The YAML takes both from latency_ms. Where a command line sets one of them apart, labels
        # would describe other trades than those that are filled.
        for room in ("labels", "execution"):
            own = getattr(getattr(self, room), "latency_ms", self.latency_ms)
            if own != self.latency_ms:
                raise ValueError(
                    f"{room}.latency_ms must equal latency_ms={self.latency_ms}, got {own}; "
                    "set latency_ms"
                )
        return self

    @model_validator(mode="after")
    def _known_schedules(self) -> TrainConfig:
        _check_schedule("strategy.schedule", self.strategy.schedule, self.fees)
        name, _, schedule = self.objective.partition("@")
        if self.objective == "select/log_loss":
            return self
        if name != "select/net_bps_day" or not schedule:
            raise ValueError(f"objective must be {' or '.join(OBJECTIVES)}, got {self.objective!r}")
        _check_schedule("objective", schedule, self.fees)
        return self


class BacktestConfig(_Config):
    ckpt: str = Field(
        min_length=1,
        description="the run to score: its id, a unique beginning of it, a folder or 'latest'",
    )
    # No dot and no slash, so that the folder cannot lie outside the run.
    name: Annotated[str, Role.PLACE] = Field(
        pattern=r"^[a-z0-9_-]{1,64}$", description="folder under <run>/backtest/ for this scoring"
    )
    open_final: bool = Field(
        description="score the locked last period in place of test; each opening is recorded"
    )
    data: Annotated[DataSpec, Room("hft.market.data")]
    execution: Annotated[ExecutionSpec, Room("hft.trading.execution")]
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[LoggerSpec, Room("hft.tracking.logger"), Role.SHOWN]


class DataKeys(Spec):
    """What a run remembers of what it was trained on: the range that its periods divide, and keys
    that change with whatever changes the numbers. A run from before 0.2.0 has no keys of features
    and labels.
    """

    # Nanoseconds since 1970.
    span: tuple[Annotated[int, Field(ge=0, lt=2**63)], Annotated[int, Field(ge=0, lt=2**63)]]
    bars: tuple[str, ...] = Field(description="a key per day: data, code and libraries")
    features: str = Field(
        description="key of their numbers, code and libraries", json_schema_extra={"before": ""}
    )
    labels: str = Field(
        description="key of their numbers, code and libraries", json_schema_extra={"before": ""}
    )

    def moved(self, now: DataKeys) -> list[str]:
        """The parts whose key is another one in `now`; one without an old key cannot be judged."""
        before, after = self.plain(), now.plain()
        return [name for name, key in before.items() if key and key != after[name]]


def _check_schedule(field: str, schedule: str, fees: dict[str, FeeSchedule]) -> None:
    if schedule not in fees:
        known = sorted(fees)
        hint = did_you_mean(schedule, known) or f"; one of {', '.join(known)}"
        raise ValueError(f"{field} names no fee schedule of `fees`: {schedule!r}{hint}")


def print_tree(config: Spec) -> None:
    """The parsed config as a rich tree on standard output."""
    from rich.console import Console
    from rich.tree import Tree

    def grow(tree: Tree, value: Any) -> None:
        for key, item in value.items():
            # All ladders together are 38 schedules, which would bury the rest of the tree.
            if isinstance(item, dict) and item and key != "fees":
                grow(tree.add(f"[bold]{key}[/bold]"), item)
            else:
                shown = f"{len(item)} schedules" if key == "fees" else json.dumps(item)
                tree.add(f"{key}: {shown}")

    tree = Tree("config", guide_style="dim")
    grow(tree, config.plain())
    Console().print(tree)
