"""TrainConfig and BacktestConfig: field order is pipeline order; what Hydra composed is converted
and parsed once here.

`hft schema` writes JSON Schemas beside the YAML, so that editors complete and underline it;
`hft check` parses every shipped experiment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hft.config.compose import CONF, make_config
from hft.spec import Kind, Room, Spec, SpecError, did_you_mean
from hft.trading.fees import FeeSchedule

OBJECTIVES = ("select/log_loss", "select/net_bps_day@<schedule>")
MONEY = ("net_bps_day", "max_drawdown_bps", "turnover_day", "trades")
# A change in any of these changes what the classes mean: no metric but MONEY can be compared across
# it (DESIGN 6).
MONEY_ONLY = ("data", "bars", "labels", "splits", "latency_ms")


class Paths(Spec):
    runs: str = Field(description="folder that holds one folder per run")
    sweeps: str = Field(
        description="folder that holds one folder per sweep, with a run folder per trial"
    )
    cache: str = Field(description="folder of the stage cache; safe to delete")


class _Config(Spec):
    """What training and scoring share."""

    seed: int = Field(ge=0, lt=2**31, description="seed of everything random in the run")
    tags: tuple[str, ...] = Field(description="words to find the run by")
    paths: Paths


class TrainConfig(_Config):
    seeds: int = Field(
        ge=1,
        le=1000,
        description="seeds that the run trains each fold with: seed .. seed + seeds - 1",
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
    show_config: bool = Field(description="print the composed config as a tree before the run")
    data: Annotated[Kind, Room("hft.market.data")]
    bars: Annotated[Kind, Room("hft.market.bars")]
    features: Annotated[dict[str, Kind], Room("hft.dataset.features", families=True)] = Field(
        min_length=1
    )
    labels: Annotated[Kind, Room("hft.dataset.labels")]
    splits: Annotated[Kind, Room("hft.dataset.splits")]
    transforms: Annotated[dict[str, Kind], Room("hft.dataset.transforms")]
    model: Annotated[Kind, Room("hft.learning.model")]
    loss: Annotated[Kind, Room("hft.learning.loss")]
    baseline: Annotated[Kind, Room("hft.learning.baseline")] = Field(
        json_schema_extra={"before": {"kind": "none"}}
    )
    optim: Annotated[Kind, Room("hft.learning.optim")]
    trainer: Annotated[Kind, Room("hft.learning.trainer")]
    strategy: Annotated[Kind, Room("hft.trading.strategy")]
    execution: Annotated[Kind, Room("hft.trading.execution")]
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[Kind, Room("hft.tracking.logger")]

    @model_validator(mode="after")
    def _one_latency(self) -> TrainConfig:
        for room in ("labels", "execution"):
            own = getattr(getattr(self, room), "latency_ms", self.latency_ms)
            if own != self.latency_ms:
                raise ValueError(
                    f"{room}.latency_ms must equal latency_ms={self.latency_ms}, got {own}; set latency_ms"
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
    name: str = Field(
        pattern=r"^[a-z0-9_-]{1,64}$", description="folder under <run>/backtest/ for this scoring"
    )
    open_final: bool = Field(
        description="score the locked last period in place of test; each opening is recorded"
    )
    data: Annotated[Kind, Room("hft.market.data")]
    execution: Annotated[Kind, Room("hft.trading.execution")]
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[Kind, Room("hft.tracking.logger")]


class SweepConfig(Spec):
    """The groups that only a sweep reads."""

    sweep: Annotated[Kind, Room("hft.study.sweep")]
    launcher: Annotated[Kind, Room("hft.search.launcher")]


class DataKeys(Spec):
    """What a run remembers of its data: the range that its periods divide, and the keys of its days
    of bars.
    """

    span: tuple[Annotated[int, Field(ge=0, lt=2**63)], Annotated[int, Field(ge=0, lt=2**63)]]
    bars: tuple[str, ...]


def _check_schedule(field: str, schedule: str, fees: dict[str, FeeSchedule]) -> None:
    if schedule not in fees:
        known = sorted(fees)
        hint = did_you_mean(schedule, known) or f"; one of {', '.join(known)}"
        raise ValueError(f"{field} names no fee schedule of `fees`: {schedule!r}{hint}")


def refuse_incomparable(objective: str, jobs: list[dict[str, Any]]) -> None:
    """Raises SpecError when `objective` is a class metric and the jobs differ in what the classes
    mean (DESIGN 6).
    """
    if objective.rpartition("/")[2].partition("@")[0] in MONEY:
        return
    varying = [
        key
        for key in MONEY_ONLY
        if len({json.dumps(job.get(key), sort_keys=True) for job in jobs}) > 1
    ]
    if varying:
        raise SpecError(
            f"objective={objective}: not comparable across different {', '.join(varying)} (the hold share alone goes "
            "from 1 % to 91 % with the barrier width); choose money: objective=select/net_bps_day@binance_usdm_vip0"
        )


def print_tree(config: Spec) -> None:
    """The parsed config as a rich tree on standard output."""
    from rich.console import Console
    from rich.tree import Tree

    def grow(tree: Tree, value: Any) -> None:
        for key, item in value.items():
            if isinstance(item, dict) and item and key != "fees":
                grow(tree.add(f"[bold]{key}[/bold]"), item)
            else:
                shown = f"{len(item)} schedules" if key == "fees" else json.dumps(item)
                tree.add(f"{key}: {shown}")

    tree = Tree("config", guide_style="dim")
    grow(tree, config.plain())
    Console().print(tree)


def write_schemas(folder: Path) -> list[Path]:
    """One JSON Schema per config group and entry point, for the `yaml-language-server` line that
    heads each YAML.
    """
    import pydantic

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for cls, entry in ((TrainConfig, "train"), (BacktestConfig, "backtest"), (SweepConfig, "")):
        for name, field in cls.model_fields.items():
            room = next((m for m in field.metadata if isinstance(m, Room)), None)
            if room is None or (folder / f"{name}.json") in written:
                continue
            kinds = tuple(room.specs().values())
            union: Any = kinds[0]
            for kind in kinds[1:]:
                union = union | kind
            if getattr(field.annotation, "__origin__", None) is dict:
                union = dict[str, union | list[Any]]  # a set may carry Hydra's `defaults:` list
            written.append(
                _write_schema(folder / f"{name}.json", pydantic.TypeAdapter(union).json_schema())
            )
        if entry:
            written.append(_write_schema(folder / f"{entry}.json", cls.model_json_schema()))
    ladder = pydantic.TypeAdapter(dict[str, FeeSchedule | list[Any]])
    return [*written, _write_schema(folder / "fees.json", ladder.json_schema())]


def _write_schema(path: Path, schema: dict[str, Any]) -> Path:
    """Interpolations are text wherever a number is due, and an overlay may leave fields out."""

    def relax(node: Any) -> Any:
        if isinstance(node, list):
            return [relax(n) for n in node]
        if not isinstance(node, dict):
            return node
        node = {k: relax(v) for k, v in node.items() if k != "required"}
        if node.get("type") in ("number", "integer", "boolean"):
            return {"anyOf": [node, {"type": "string", "pattern": r"^\$\{.*\}$"}]}
        if "properties" in node:
            node["properties"]["defaults"] = {"type": "array"}
        return node

    path.write_text(json.dumps(relax(schema), indent=1) + "\n")
    return path


def check_experiments() -> list[str]:
    """Problems of every shipped experiment and debug overlay, none when all parse."""
    from hydra.errors import HydraException

    problems = []
    for group in ("experiment", "debug"):
        for path in sorted((CONF / group).glob("*.yaml")):
            try:
                make_config(TrainConfig, [f"{group}={path.stem}"], conf=CONF)
            except (SpecError, HydraException) as error:
                # What a file leaves to the command line (`???`, a data path) is no fault of it.
                lines = [line for line in str(error).splitlines() if "has no value yet" not in line]
                problems += [f"conf/{group}/{path.name}: {line}" for line in lines]
    return problems


def main(arguments: list[str]) -> int:
    if arguments == ["schema"]:
        written = write_schemas(CONF / "schema")
        sys.stdout.write(f"{len(written)} schemas in conf/schema\n")
        return 0
    if arguments == ["check"]:
        problems = check_experiments()
        sys.stdout.write("\n".join(problems or ["every shipped experiment parses"]) + "\n")
        return bool(problems)
    sys.stderr.write("usage: hft schema|check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
