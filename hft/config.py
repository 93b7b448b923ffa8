"""TrainConfig and BacktestConfig: field order is pipeline order; what Hydra composed is converted and parsed once here.

`python -m hft.config schema` writes JSON Schemas beside the YAML, so that editors complete and underline it;
`python -m hft.config check` parses every shipped experiment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, model_validator

from hft.fees import FeeSchedule
from hft.spec import Kind, Room, Spec, SpecError, UserError, did_you_mean, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hft.runs import Run

CONF = Path(__file__).parents[1] / "conf"
OBJECTIVES = ("select/log_loss", "select/net_bps_day@<schedule>")
# A change in any of these changes what the classes mean, so class metrics cannot be compared across it (DESIGN 6).
MONEY_ONLY = ("data", "bars", "labels", "splits", "latency_ms")
FROM_RUN = "from_run"
C = TypeVar("C", bound=Spec)


class Paths(Spec):
    runs: str = Field(description="folder that holds one folder per run")
    cache: str = Field(description="folder of the stage cache; safe to delete")


class _Config(Spec):
    """What training and scoring share."""

    seed: int = Field(ge=0, lt=2**31, description="seed of everything random in the run")
    tags: tuple[str, ...] = Field(description="words to find the run by")
    paths: Paths


class TrainConfig(_Config):
    objective: str = Field(description=f"what the run reports and a sweep maximises: {' or '.join(OBJECTIVES)}")
    min_trades: int = Field(ge=1, description="trades on select below which a gain does not count in the objective")
    latency_ms: float = Field(ge=0, description="from decision to market, ms; one number for labels and execution")
    show_config: bool = Field(description="print the composed config as a tree before the run")
    data: Annotated[Kind, Room("hft.data")]
    bars: Annotated[Kind, Room("hft.bars")]
    features: Annotated[dict[str, Kind], Room("hft.features", families=True)] = Field(min_length=1)
    labels: Annotated[Kind, Room("hft.labels")]
    splits: Annotated[Kind, Room("hft.splits")]
    transforms: Annotated[dict[str, Kind], Room("hft.transforms")]
    model: Annotated[Kind, Room("hft.model")]
    loss: Annotated[Kind, Room("hft.loss")]
    optim: Annotated[Kind, Room("hft.training", base="OptimSpec")]
    trainer: Annotated[Kind, Room("hft.training", base="TrainerSpec")]
    strategy: Annotated[Kind, Room("hft.strategy")]
    execution: Annotated[Kind, Room("hft.execution")]
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[Kind, Room("hft.tracking")]

    @model_validator(mode="after")
    def _one_latency(self) -> TrainConfig:
        for room in ("labels", "execution"):
            own = getattr(getattr(self, room), "latency_ms", self.latency_ms)
            if own != self.latency_ms:
                raise ValueError(f"{room}.latency_ms must equal latency_ms={self.latency_ms}, got {own}; set latency_ms")
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
    ckpt: str = Field(min_length=1, description="the run to score: its id, a unique beginning of it, a folder or 'latest'")
    name: str = Field(pattern=r"^[a-z0-9_-]{1,64}$", description="folder under <run>/backtest/ for this scoring")
    data: Annotated[Kind, Room("hft.data")]
    strategy: Annotated[Kind, Room("hft.strategy")]
    execution: Annotated[Kind, Room("hft.execution")]
    fees: dict[str, FeeSchedule] = Field(min_length=1)
    logger: Annotated[Kind, Room("hft.tracking")]

    @model_validator(mode="after")
    def _known_schedule(self) -> BacktestConfig:
        _check_schedule("strategy.schedule", self.strategy.schedule, self.fees)
        return self


def _check_schedule(field: str, schedule: str, fees: dict[str, FeeSchedule]) -> None:
    if schedule not in fees:
        known = sorted(fees)
        hint = did_you_mean(schedule, known) or f"; one of {', '.join(known)}"
        raise ValueError(f"{field} names no fee schedule of `fees`: {schedule!r}{hint}")


def compose(overrides: list[str], *, entry: str = "train", full_tree: bool = False) -> DictConfig:
    """What `python <entry>.py <overrides>` composes, for tests, checks and notebooks."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(entry, overrides=overrides, return_hydra_config=full_tree)


def parse_job(composed: DictConfig, cls: type[C]) -> C:
    """The typed config of the running Hydra job; SpecError names every mistake."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    if str(hydra.mode).endswith("RUN") and not str(hydra.mode).endswith("MULTIRUN"):
        refuse_sweep_keys(list(hydra.overrides.task))
    return from_hydra(composed, cls, choices=hydra.runtime.choices, overrides=list(hydra.overrides.task))


def backtest_job(composed: DictConfig) -> tuple[BacktestConfig, TrainConfig, Run]:
    """The scoring to do, the config of the run it scores, and that run; `from_run` groups are taken from the run.

    Keys set beside `kind: from_run` replace the run's: `+execution.latency_ms=200`.
    """
    from hft.runs import find_run

    plain = to_plain(composed)
    run = find_run(Path(plain["paths"]["runs"]), str(plain["ckpt"]))
    stored = {**run.read_config(), "paths": plain["paths"], "show_config": False}
    trained = parse(TrainConfig, stored)
    for group, value in plain.items():
        if isinstance(value, dict) and value.get("kind") == FROM_RUN:
            plain[group] = {**stored[group], **{k: v for k, v in value.items() if k != "kind"}}
    return parse(BacktestConfig, plain | {"seed": stored["seed"], "tags": stored["tags"]}), trained, run


def from_hydra(composed: DictConfig, cls: type[C], *, choices: dict[str, Any], overrides: list[str]) -> C:
    """The typed config of a composed one. `choices` are Hydra's group choices, `overrides` the command line: they tell
    who set what where an experiment fills in a kind that the command line then replaced."""
    errors = overlay_conflicts(choices, overrides)
    try:
        config = parse(cls, to_plain(composed))
    except SpecError as error:
        errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
    return config


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Plain data with interpolations resolved, without what only the sweep driver reads."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.set_struct(composed, False)
    plain = {k: v for k, v in composed.items_ex(resolve=False) if k not in ("hydra", "sweep", "launcher")}
    try:
        return OmegaConf.to_container(OmegaConf.create(plain, flags={"allow_objects": False}), resolve=True)
    except OmegaConfBaseException as error:
        raise SpecError(f"{error.full_key or 'config'}: an interpolation does not resolve: {error.msg}") from None


def overlay_conflicts(choices: dict[str, Any], overrides: list[str]) -> list[str]:
    """One line per group whose kind an experiment chose and filled in, and the command line then replaced.

    Hydra merges the experiment's numbers into the other kind without a word: 10 trades would become 10 dollars.
    """
    import yaml

    lines = []
    for overlay in ("experiment", "debug"):
        name = choices.get(overlay)
        path = CONF / overlay / f"{name}.yaml"
        if not name or not path.is_file():
            continue
        body = yaml.safe_load(path.read_text()) or {}
        chosen = {}
        for item in body.get("defaults", []):
            if isinstance(item, dict):
                chosen |= {k.removeprefix("override ").lstrip("/"): v for k, v in item.items()}
        for group, kind in chosen.items():
            if group not in choices or not isinstance(kind, str) or choices[group] == kind:
                continue
            given = {o.lstrip("+~").partition("=")[0] for o in overrides}
            left = [f"{group}.{k}={v}" for k, v in (body.get(group) or {}).items() if f"{group}.{k}" not in given]
            if left:
                lines.append(
                    f"{group}: {overlay}={name} chose {kind!r} and sets {', '.join(left)}; the command line chose "
                    f"{choices[group]!r}, for which these were not meant; give them on the command line too"
                )
    return lines


def refuse_sweep_keys(overrides: list[str]) -> None:
    """Raises SpecError for `sweep...` and `launcher...` on a single run, where they would be ignored."""
    ignored = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] in ("sweep", "launcher")]
    if ignored:
        raise SpecError(f"{', '.join(ignored)}: only a sweep reads this; add -m or take it out")


def refuse_incomparable(objective: str, jobs: list[dict[str, Any]]) -> None:
    """Raises SpecError when `objective` is a class metric and the jobs differ in what the classes mean (DESIGN 6)."""
    if "net_bps_day@" in objective:
        return
    varying = [key for key in MONEY_ONLY if len({json.dumps(job.get(key), sort_keys=True) for job in jobs}) > 1]
    if varying:
        raise SpecError(
            f"objective={objective}: not comparable across different {', '.join(varying)} (the hold share alone goes from "
            "1 % to 91 % with the barrier width); choose money: objective=select/net_bps_day@binance_usdm_vip0"
        )


def explain(error: BaseException, entry: str) -> int:
    """The exit status for what ended an entry point, its message printed where the user can mend it, else raised.

    What Hydra refused on the command line joins the full report: the same overrides are composed again with `++`.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 130
    if isinstance(error, HydraException | OmegaConfBaseException):
        error = _mended(entry, sys.argv[1:]) or UserError(str(error))
    if not isinstance(error, UserError):
        raise error
    lines = str(error).strip().splitlines()
    sys.stderr.write("error: " + "\n       ".join(lines) + "\n")
    return 2


def _mended(entry: str, arguments: list[str]) -> SpecError | None:
    """Every mistake of the command line, once the keys that Hydra refuses are forced in; None if that does not help."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    forced = []
    try:
        for override in OverridesParser.create().parse_overrides([a for a in arguments if not a.startswith("-")]):
            line = override.input_line or ""
            if override.is_sweep_override():
                line = f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
            is_group = (CONF / override.key_or_group).is_dir()
            forced.append(line if is_group or line[0] in "+~" else f"++{line}")
        plain = to_plain(compose(forced, entry=entry))
        parse(TrainConfig if entry == "train" else BacktestConfig, plain)
    except SpecError as error:
        return error
    except (HydraException, OmegaConfBaseException):
        return None
    return None


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
    """One JSON Schema per config group and entry point, for the `yaml-language-server` line that heads each YAML."""
    import pydantic

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for cls, entry in ((TrainConfig, "train"), (BacktestConfig, "backtest")):
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
            written.append(_write_schema(folder / f"{name}.json", pydantic.TypeAdapter(union).json_schema()))
        written.append(_write_schema(folder / f"{entry}.json", cls.model_json_schema()))
    return written


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
    problems = []
    for group in ("experiment", "debug"):
        for path in sorted((CONF / group).glob("*.yaml")):
            overrides = [f"{group}={path.stem}"]
            try:
                from_hydra(compose(overrides), TrainConfig, choices={group: path.stem}, overrides=overrides)
            except SpecError as error:
                problems += [f"conf/{group}/{path.name}: {line}" for line in str(error).splitlines()]
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
    sys.stderr.write("usage: python -m hft.config schema|check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
