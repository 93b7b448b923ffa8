"""study.json: what all trials of a study share, read strictly, and how two accounts of it
differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from hft.runs.folder import MAX_JSON_BYTES, NAME
from hft.space import Scalar
from hft.spec import Kind, Room, Spec, SpecError, UserError, parse
from hft.study.storage import read_address
from hft.system.files import write_atomic
from hft.system.provenance import INERT, flat

FREE = (
    "study",
    "n_trials",
    "timeout",
    "storage",
    "max_retry",
    "enqueue",
    "space",
)  # of `sweep`: may differ by call
ELSEWHERE = ("paths.", "data.path")  # of `base`: where things lie on one machine
INSIDE = ("journal", "sqlite")  # storages in the study's own folder
SHOWN = 20  # lines of a difference
ANOTHER = "or begin another study: sweep.study=new"


class StudyError(UserError):
    """A study that cannot be found or read, or is not the one that was asked for."""


class StoredDimension(Spec):
    """What `Dimension.plain` writes, which leaves out what a dimension does not have."""

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_@./-]*$")
    prefix: Literal["", "+", "++"] = ""
    choices: tuple[Scalar, ...] | None = None
    texts: tuple[str, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()


class About(Spec):
    """study.json; `overrides` are those that every trial has."""

    name: str = Field(pattern=rf"^{NAME.pattern}$")
    storage: str
    code: str = Field(pattern=r"^[0-9a-f]{64}$")
    conf: str = Field(pattern=r"^[0-9a-f]{64}$")
    base: dict[str, Any]
    space: tuple[StoredDimension, ...]
    sweep: Annotated[Kind, Room("hft.study.sweep")]
    overrides: tuple[str, ...]


def refuse_other(stored: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Raises StudyError where what is asked for is not the study that the storage has."""
    name, lines = stored["name"], differences(stored, asked)
    if lines:
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        shown = "\n  ".join(lines[:SHOWN] + more)
        raise StudyError(
            f"study {name} is another one; take back what differs, {ANOTHER}\n  {shown}"
        )
    if stored["conf"] != asked["conf"]:
        raise StudyError(
            f"study {name}: its conf/ is {stored['conf'][:12]}, the one here is {asked['conf'][:12]}; restore "
            f"{folder / 'conf'}, or come with the conf/ that it was begun with, {ANOTHER}"
        )
    if stored["code"] != asked["code"]:
        raise StudyError(
            f"study {name}: its code, hft/, is {stored['code'][:12]}, the one here is {asked['code'][:12]}, and its "
            f"trials must be comparable; restore it, {ANOTHER}"
        )


def differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """`model.channels: 32 -> 64`, and `space.` or `sweep.` before what is not of the base
    config.
    """
    before, after = _identity(stored), _identity(asked)
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    return [
        f"{name}: {before.get(name, '(none)')} -> {after.get(name, '(none)')}" for name in names
    ]


def _identity(about: dict[str, Any]) -> dict[str, str]:
    kept = {name: value for name, value in about["base"].items() if name not in INERT}
    base = {name: value for name, value in flat(kept).items() if not name.startswith(ELSEWHERE)}
    space = {d["path"]: {k: v for k, v in d.items() if k != "path"} for d in about["space"]}
    sweep = {name: value for name, value in about["sweep"].items() if name not in FREE}
    named = {f"space.{p}.{k}": v for p, parts in space.items() for k, v in parts.items()}
    named |= {f"sweep.{name}": value for name, value in flat(sweep).items()}
    return {name: json.dumps(value) for name, value in (base | named).items()}


def check_name(folder: Path) -> None:
    if not NAME.fullmatch(folder.name):
        raise StudyError(
            f"study name: must be letters, digits, '.', '_' or '-', at most 64, got {folder.name!r}"
        )


def read_about(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"must have at most {MAX_JSON_BYTES} bytes")
        about = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StudyError(f"{path}: missing, so there is no study in {folder}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read ({error}); restore it, {ANOTHER}") from None
    parse_about(about, str(path))
    if about["name"] != folder.name:
        raise StudyError(
            f"{path}: is of study {about['name']}, so the folder must be named that, got {folder.name}"
        )
    return about


def remember_storage(folder: Path, storage: str) -> None:
    """Beside the studies, not in one, since a study may come from a stranger: what lies elsewhere
    is known here.
    """
    if storage not in INSIDE and _known_storage(folder) != storage:
        write_atomic(_note(folder), json.dumps({"storage": storage}).encode())


def refuse_unknown(folder: Path, storage: str) -> None:
    """A stranger's study.json could send us, and our database password, to a server of theirs, or
    write to any file.
    """
    read_address(storage, folder)  # its own complaints come first
    if storage not in INSIDE and _known_storage(folder) != storage:
        raise StudyError(
            f"{folder / 'study.json'}: names storage {storage}, which no sweep has used from here; if you trust it, "
            f"give it yourself: storage={storage}"
        )


def _known_storage(folder: Path) -> str | None:
    try:
        return str(json.loads(_note(folder).read_text())["storage"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(folder: Path) -> Path:
    return folder.parent / ".local" / f"{folder.name}.storage.json"


def parse_about(about: Any, where: str) -> About:
    if not isinstance(about, dict):
        raise StudyError(
            f"{where}: must hold a mapping, got {type(about).__name__}; choose another study"
        )
    try:
        return parse(About, about, stored=True)
    except (SpecError, RecursionError, pydantic.PydanticUserError) as error:
        lines = str(error).replace("\n", "\n  ")
        raise StudyError(
            f"{where}: not a study of ours; restore it, or choose another\n  {lines}"
        ) from None


def as_stored(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value, allow_nan=False))
