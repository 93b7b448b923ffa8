"""What an entry point is asked to do: train, go on with a run, repeat one, or score one.

In: what Hydra composed. Out: a typed job. A run that is resumed, repeated or scored brings its own
config; the command line may say where things lie and what is shown, and nothing that would change
the numbers. Another device or number of threads would change their last bits. A path that a run's
own files name is never followed: this machine's note, or the command line, says where its data are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft.config.compose import from_hydra, to_plain
from hft.config.configs import BacktestConfig, DataKeys, Paths, TrainConfig
from hft.config.conflicts import refuse_sweep_keys
from hft.config.groups import NOT_CONFIG, OVERLAYS
from hft.config.overrides import group_of, path_of, value_at
from hft.runs.folder import Run, RunError
from hft.runs.registry import find_run, list_runs, remembered_path
from hft.spec import INERT, Role, SpecError, parse, roles_of, room_of
from hft.system.commands import typed
from hft.system.version import VERSION

if TYPE_CHECKING:
    from omegaconf import DictConfig

FROM_RUN = "from_run"
UNKNOWN = "(not known here)"  # of data whose place this machine has no note of
# Not None, which is a value that a field may have.
_ABSENT = object()


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
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    # Without -m nothing reads `sweep` and `launcher`, and what would be ignored is refused.
    if hydra.mode is RunMode.RUN:
        refuse_sweep_keys(overrides)
    return read_train_job(composed, choices=hydra.runtime.choices, overrides=overrides)


def read_train_job(
    composed: DictConfig, *, choices: dict[str, Any], overrides: list[str]
) -> TrainJob:
    """`choices` are Hydra's group choices, `overrides` the command line."""
    resume, repeat = str(composed.get("resume") or ""), str(composed.get("reproduce") or "")
    if not resume and not repeat:
        config = from_hydra(composed, TrainConfig, choices=choices, overrides=overrides)
        return TrainJob(config, overrides=_shown(config, overrides))
    if resume and repeat:
        raise SpecError(f"resume={resume} and reproduce={repeat}: give one of them")
    plain = to_plain(composed)
    paths = _paths(plain)
    run = _unfinished(paths, resume) if resume else _done(paths, repeat)
    if resume:
        # A repeat is not refused: it trains from nothing, and says which versions differ.
        _refuse_other_version(run)
    own = stored_config(run, Path(paths.runs), plain)
    config = _with_beside(own, run, plain, overrides, key="resume" if resume else "reproduce")
    if resume:
        return TrainJob(config, resumed=run)
    return TrainJob(config, repeated=run, overrides=_shown(config, overrides))


def _shown(config: TrainConfig, overrides: list[str]) -> tuple[str, ...]:
    """The overrides without those that say where things lie here; a mapping may hold such a
    place.
    """
    # A run travels with its overrides, and a path in them would tell strangers about this machine.
    roles = roles_of(TrainConfig, config.plain())
    places = [at for at, role in roles.items() if role is Role.PLACE]

    def is_place(override: str) -> bool:
        path = path_of(override)
        is_mapping = override.partition("=")[2].startswith("{")
        return any(_is_within(path, at) or (is_mapping and _is_within(at, path)) for at in places)

    return tuple(override for override in overrides if not is_place(override))


def _is_within(path: str, above: str) -> bool:
    return f"{path}.".startswith(f"{above}.")


def _with_beside(
    config: TrainConfig, run: Run, plain: dict[str, Any], overrides: list[str], *, key: str
) -> TrainConfig:
    """The run's own config with what the command line, which composed `plain`, sets beside it.
    Raises SpecError for whatever would change numbers.
    """
    own = config.plain()
    roles = roles_of(TrainConfig, own)
    # Of an overlay the config holds the name alone: setting that would drop the overlay's numbers.
    free = [at for at, role in roles.items() if role in INERT and at not in OVERLAYS]
    refused = []
    for override in overrides:
        path = path_of(override)
        asked, was = value_at(plain, path, _ABSENT), value_at(own, path, _ABSENT)
        if group_of(override) in NOT_CONFIG:
            continue
        if asked is not _ABSENT and any(_is_within(path, at) for at in free):
            _set_at(own, path, asked)
        elif not _is_same(override, asked, was):
            own_one = "its own config" if group_of(override) in OVERLAYS else _said(was)
            refused.append(f"{path}: {own_one} in run {run.id}, {_typed(override)} given")
    if refused:
        raise SpecError(
            "\n".join(refused) + f"\n{key}= takes the config of the run, and nothing beside it may "
            f"change its numbers: take {'this' if len(refused) == 1 else 'these'} out, or train "
            f"another run without {key}=; only these can be "
            f"set: {', '.join(f'{at}=' for at in free)}"
        )
    # Asked after the overrides, because one of them may have said where the data lie.
    if own["data"].get("path") == UNKNOWN:
        raise SpecError(_where_are_data(run))
    return parse(TrainConfig, own)


def _is_same(override: str, asked: Any, was: Any) -> bool:
    """Whether what an override asks for is what the run has already. The choice of a group, such as
    `bars=tick`, asks for a kind: the numbers in it stay the run's.
    """
    is_choice = isinstance(asked, dict) and not override.partition("=")[2].startswith("{")
    if is_choice and "kind" in asked and isinstance(was, dict):
        return bool(asked["kind"] == was["kind"])
    is_flag = isinstance(asked, bool), isinstance(was, bool)  # true is no 1
    return asked is not _ABSENT and is_flag[0] == is_flag[1] and asked == was


def _set_at(plain: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for part in above:
        plain = plain[part]
    plain[name] = value


def _said(was: Any) -> str:
    """What a run has, in few words: of a choice its kind, of a set its names."""
    if was is _ABSENT:
        return "nothing"
    if isinstance(was, dict):
        return str(was["kind"]) if "kind" in was else ", ".join(was)
    return json.dumps(was)


def _typed(override: str) -> str:
    return "nothing" if override.startswith("~") else override.partition("=")[2]


def backtest_job(composed: DictConfig) -> tuple[BacktestConfig, TrainConfig, Run]:
    """The scoring to do, the config of the run it scores, and that run; `from_run` groups are taken
    from the run.

    Keys set beside `kind: from_run` replace the run's: `+execution.latency_ms=200`.
    """
    plain = to_plain(composed)
    paths = _paths(plain)
    # OmegaConf's mark of a value that is still missing.
    if plain.get("ckpt", "???") == "???":
        raise SpecError(
            "ckpt: has no value yet (the run to score); set it: ckpt=<run>, or ckpt=latest"
        )
    run = _done(paths, str(plain["ckpt"]))
    trained = stored_config(run, Path(paths.runs), plain)
    own = trained.plain()
    for group, value in plain.items():
        if isinstance(value, dict) and value.get("kind") == FROM_RUN:
            plain[group] = {**own[group], **{k: v for k, v in value.items() if k != "kind"}}
    config = parse(BacktestConfig, plain | {"seed": own["seed"], "tags": own["tags"]})
    return config, trained, run


def stored_config(run: Run, root: Path, plain: dict[str, Any]) -> TrainConfig:
    """The run's own config with the places of this machine: `paths`, and that of the data, where
    `plain` or a note below `root` says it. Raises SpecError.
    """
    stored = {**run.read_config(), "paths": plain["paths"]}
    stored["data"] = _data_here(stored.get("data"), plain.get("data"), root, run)
    try:
        # `stored`: a field that is younger than the run gets the value of the old behaviour
        # (docs/design.md 3).
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
    # Where none is done, `_find` takes the newest, and the messages below say how to go on with it.
    run = next((run for run in runs if _state(run) == "done"), None) or _find(paths, name)
    if run.is_trial and run.state != "done":
        raise RunError(
            f"trial {run.id} is {run.state}, not done: choose one that its sweep finished"
        )
    if run.state != "done":
        raise RunError(
            f"run {run.id} is {run.state}, not done: go on with it "
            f"({typed('train', f'resume={run.id}')}), choose another, or train it again"
        )
    return run


def _state(run: Run) -> str:
    try:
        return run.state
    # One damaged folder must not hide the other runs from `latest`.
    except RunError:
        return "unreadable"


def _unfinished(paths: Paths, name: str) -> Run:
    """The run to go on with: `latest` is the newest that has not ended and knows what it was
    asked.
    """
    root = Path(paths.runs)
    if name == "latest":
        # A run without config.json was killed before it knew what it was asked.
        known = [run for run in list_runs(root) if (run.folder / "config.json").is_file()]
        open_runs = [run for run in known if _state(run) in ("new", "interrupted", "failed")]
        if not open_runs:
            raise RunError(f"resume=latest: no run in {root} waits to go on; hft runs lists them")
        return open_runs[0]
    run = _find(paths, name)
    if run.is_trial:
        raise RunError(
            f"run {run.id} is a sweep's trial, whose value the sweep keeps: only the sweep goes on "
            f"with it; give its command again, with sweep.study={run.folder.parent.name}"
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
    room = room_of(TrainConfig.model_fields["data"])
    spec = room.class_of(stored) if room else None
    # What is no kind of ours is left to `parse`, whose message names it.
    if spec is None or "path" not in spec.model_fields:
        return stored
    path = remembered_path(root, run.id)
    if isinstance(asked, dict) and asked.get("kind") == FROM_RUN:
        path = asked.get("path") or path
        if not path:
            raise SpecError(_where_are_data(run))
    return {**stored, "path": path or UNKNOWN}


def _where_are_data(run: Run) -> str:
    return (
        f"data.path: where the data of run {run.id} lie here is not known; set it: +data.path=..."
    )
