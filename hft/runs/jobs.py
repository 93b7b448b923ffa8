"""What an entry point is asked to do: train, go on with a run, repeat one, or score one.

In: what Hydra composed. Out: a typed job. A run that is resumed, repeated or scored brings its own
config; the command line may choose where it computes and where it is logged, nothing that would
change the numbers. A path that a run's own files name is never followed: this machine's note, or
the command line, says where its data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft.config.compose import from_hydra, to_plain
from hft.config.configs import BacktestConfig, DataKeys, Paths, TrainConfig
from hft.config.conflicts import refuse_sweep_keys
from hft.runs.folder import Run, RunError
from hft.runs.registry import find_run, list_runs, remembered_path
from hft.spec import Room, SpecError, parse
from hft.system.commands import typed
from hft.system.version import VERSION

if TYPE_CHECKING:
    from omegaconf import DictConfig

FROM_RUN = "from_run"
FREE = (
    "resume",
    "reproduce",
    "trainer",
    "logger",
    "paths",
    "show_config",
    "tags",
)  # cannot change a run's numbers


@dataclass(frozen=True)
class TrainJob:
    """`resumed` is the run to go on with, `repeated` the one whose numbers to compare with; at most
    one of them. `overrides` are what was typed, without the places of this machine: shown, and
    never obeyed.
    """

    config: TrainConfig
    resumed: Run | None = None
    repeated: Run | None = None
    overrides: tuple[str, ...] = ()


def train_job(composed: DictConfig) -> TrainJob:
    """The job of the running Hydra process; SpecError or RunError names every mistake."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    if hydra.mode.name == "RUN":
        refuse_sweep_keys(overrides)
    return read_train_job(composed, choices=hydra.runtime.choices, overrides=overrides)


def read_train_job(
    composed: DictConfig, *, choices: dict[str, Any], overrides: list[str]
) -> TrainJob:
    """`choices` are Hydra's group choices, `overrides` the command line."""
    resume, repeat = str(composed.get("resume") or ""), str(composed.get("reproduce") or "")
    shown = tuple(o for o in overrides if not _names_a_place(o))
    if not resume and not repeat:
        config = from_hydra(composed, TrainConfig, choices=choices, overrides=overrides)
        return TrainJob(config, overrides=shown)
    if resume and repeat:
        raise SpecError(f"resume={resume} and reproduce={repeat}: give one of them")
    refused = [o for o in overrides if o.lstrip("+~").partition("=")[0].split(".")[0] not in FREE]
    if refused:
        raise SpecError(
            f"{', '.join(refused)}: the config comes from the run; beside resume= and reproduce= only "
            f"{', '.join(f'{name}=' for name in FREE[2:])} can be set"
        )
    plain = to_plain(composed)
    paths = _paths(plain)
    run = _unfinished(paths, resume) if resume else _done(paths, repeat)
    if resume:
        _refuse_other_version(run)
    config = stored_config(run, Path(paths.runs), plain, overrides=overrides)
    if resume:
        return TrainJob(config, resumed=run)
    return TrainJob(config, repeated=run, overrides=shown)


def _names_a_place(override: str) -> bool:
    """Whether an override says where things lie here, or (`data={...}`) may say so."""
    path, _, value = override.partition("=")
    path = path.lstrip("+~")
    return path in ("data.path", "paths") or path.startswith("paths.") or value.startswith("{")


def backtest_job(composed: DictConfig) -> tuple[BacktestConfig, TrainConfig, Run]:
    """The scoring to do, the config of the run it scores, and that run; `from_run` groups are taken
    from the run.

    Keys set beside `kind: from_run` replace the run's: `+execution.latency_ms=200`.
    """
    plain = to_plain(composed)
    paths = _paths(plain)
    if plain.get("ckpt", "???") == "???":
        raise SpecError(
            "ckpt: has no value yet (the run to score); set it: ckpt=<run>, or ckpt=latest"
        )
    run = _done(paths, str(plain["ckpt"]))
    trained = stored_config(run, Path(paths.runs), plain, overrides=[])
    own = trained.plain()
    for group, value in plain.items():
        if isinstance(value, dict) and value.get("kind") == FROM_RUN:
            plain[group] = {**own[group], **{k: v for k, v in value.items() if k != "kind"}}
    config = parse(BacktestConfig, plain | {"seed": own["seed"], "tags": own["tags"]})
    return config, trained, run


def stored_config(
    run: Run, root: Path, plain: dict[str, Any], *, overrides: list[str]
) -> TrainConfig:
    """The run's config with this machine's paths, and what the command line may choose beside
    it.
    """
    stored = {**run.read_config(), "paths": plain["paths"]}
    stored["data"] = _data_here(stored.get("data"), plain.get("data"), root, run)
    given = [o.lstrip("+").partition("=")[0] for o in overrides]
    for name in given:
        group, _, field = name.partition(".")
        if name in ("logger", "tags", "show_config"):
            stored[name] = plain[name]
        elif group in ("trainer", "logger") and isinstance(stored.get(group), dict):
            # Another trainer is another device: how long and in what portions the run trains stays
            # its own.
            stored[group] = stored[group] | {field or "kind": plain[group][field or "kind"]}
    try:
        return parse(TrainConfig, stored, stored=True)
    except SpecError as error:
        raise SpecError(
            f"{run.folder / 'config.json'}: not a config of ours; choose another run\n{error}"
        ) from None


def read_data_keys(run: Run) -> DataKeys:
    try:
        return parse(DataKeys, run.read_about()["data_keys"], stored=True)
    except SpecError as error:
        place = f"{run.folder / 'config.json'}: data_keys"
        raise RunError(
            f"{place}: not those of a run of ours; choose another run\n{error}"
        ) from None


def _paths(plain: dict[str, Any]) -> Paths:
    return parse(Paths, plain.get("paths") or {})


def _find(paths: Paths, name: str) -> Run:
    return find_run(Path(paths.runs), name, sweeps=Path(paths.sweeps))


def _done(paths: Paths, name: str) -> Run:
    """The run that is meant, which must have reached its end: `latest` is the newest that did."""
    runs = list_runs(Path(paths.runs)) if name == "latest" else []
    run = next((run for run in runs if _state(run) == "done"), None) or _find(paths, name)
    if run.is_trial and run.state != "done":
        raise RunError(
            f"trial {run.id} is {run.state}, not done: choose one that its sweep finished"
        )
    if run.state != "done":
        raise RunError(
            f"run {run.id} is {run.state}, not done: go on with it (python train.py resume={run.id}), choose another, "
            "or train it again"
        )
    return run


def _state(run: Run) -> str:
    try:
        return run.state
    except RunError:
        return "unreadable"


def _unfinished(paths: Paths, name: str) -> Run:
    """The run to go on with: `latest` is the newest that has not ended and knows what it was
    asked.
    """
    root = Path(paths.runs)
    if name == "latest":
        known = [run for run in list_runs(root) if (run.folder / "config.json").is_file()]
        open_runs = [run for run in known if _state(run) in ("new", "interrupted", "failed")]
        if not open_runs:
            raise RunError(f"resume=latest: no run in {root} waits to go on; hft runs lists them")
        return open_runs[0]
    run = _find(paths, name)
    if run.is_trial:
        raise RunError(
            f"run {run.id} is a sweep's trial, whose value the sweep keeps: only the sweep goes on with it; give its "
            f"command again, with sweep.study={run.folder.parent.name}"
        )
    if run.state == "done":
        raise RunError(
            f"run {run.id} is done: score it ({typed('backtest', f'ckpt={run.id}')}) or repeat it "
            f"({typed('train', f'reproduce={run.id}')})"
        )
    return run


def _refuse_other_version(run: Run) -> None:
    """A training's state belongs to the code that saved it."""
    if (version := run.read_version()) != VERSION:
        raise RunError(
            f"run {run.id} was begun by hft {version}, and only that version can go on with it: "
            f"this is {VERSION}; install hft {version}, or train the run anew"
        )


def _data_here(stored: Any, asked: Any, root: Path, run: Run) -> Any:
    """The run's data with this machine's path."""
    room = next(m for m in TrainConfig.model_fields["data"].metadata if isinstance(m, Room))
    spec = (
        room.load(stored["kind"])
        if isinstance(stored, dict) and isinstance(stored.get("kind"), str)
        else None
    )
    if spec is None or "path" not in spec.model_fields:
        return stored
    path = remembered_path(root, run.id)
    if isinstance(asked, dict) and asked.get("kind") == FROM_RUN:
        path = asked.get("path") or path
        if not path:
            raise SpecError(
                f"data.path: where the data of run {run.id} lie here is not known; set it: +data.path=..."
            )
    return {**stored, "path": path or "(not known here)"}
