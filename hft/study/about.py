"""study.json: what all trials of a study share, read strictly, and how two accounts of it
differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from hft.config.configs import TrainConfig
from hft.runs.folder import NAME
from hft.space import Scalar
from hft.spec import Role, Room, Spec, SpecError, UserError, numbers_of, parse
from hft.study.storage import read_address
from hft.study.sweep import SweepSpec
from hft.system.files import read_json, read_note, write_json
from hft.system.provenance import flat
from hft.system.version import FIRST_VERSION

INSIDE = ("journal", "sqlite")  # storages in the study's own folder
SHOWN = 20  # lines of a difference
ANOTHER = "or begin another study: sweep.study=new"


class StudyError(UserError):
    """A study that cannot be found or read, or is not the one that was asked for."""


class StoredDimension(Spec):
    """What `Dimension.plain` writes: it leaves out what a dimension does not have."""

    # The path becomes an override of a composed config: a stranger's may be a dotted name, no more.
    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_@./-]*$")
    # `~` is missing on purpose: as an override it would take a field out of the config.
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
    version: str = Field(
        pattern=r"^[0-9A-Za-z.+-]{1,32}$",
        description="of hft, which began the study",
        json_schema_extra={"before": FIRST_VERSION},
    )
    storage: str
    code: str = Field(pattern=r"^[0-9a-f]{64}$")
    conf: str = Field(pattern=r"^[0-9a-f]{64}$")
    base: dict[str, Any]
    space: tuple[StoredDimension, ...]
    sweep: Annotated[SweepSpec, Room("hft.study.sweep")]
    overrides: tuple[str, ...]


def refuse_other(stored: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Raises StudyError where what is asked for is not the study that the storage has."""
    name, lines = stored["name"], differences(stored, asked)
    before, now = (about.get("version", FIRST_VERSION) for about in (stored, asked))
    if before != now:  # between versions everything below may differ, through no fault of the user
        raise StudyError(
            f"study {name}: hft {before} began it, this is hft {now}, and its trials must be "
            f"comparable; go on with it in hft {before}, {ANOTHER}"
        )
    if lines:
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        shown = "\n  ".join(lines[:SHOWN] + more)
        raise StudyError(
            f"study {name} is another one; take back what differs, {ANOTHER}\n  {shown}"
        )
    # Fields are compared before hashes: a user can take back a field that is named, while a hash
    # only says that something differs.
    if stored["conf"] != asked["conf"]:
        raise StudyError(
            f"study {name}: its conf/ is {stored['conf'][:12]}, the one here is "
            f"{asked['conf'][:12]}; restore {folder / 'conf'}, or come with the conf/ that it was "
            f"begun with, {ANOTHER}"
        )
    if stored["code"] != asked["code"]:
        raise StudyError(
            f"study {name}: its code, hft/, is {stored['code'][:12]}, the one here is "
            f"{asked['code'][:12]}, and its trials must be comparable; restore it, {ANOTHER}"
        )


def differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Lines such as `model.channels: 32 -> 64`; fields outside of the base config begin with
    `space.` or `sweep.`.
    """
    before, after = _identity(stored), _identity(asked)
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    return [
        f"{name}: {before.get(name, '(none)')} -> {after.get(name, '(none)')}" for name in names
    ]


def _identity(about: dict[str, Any]) -> dict[str, str]:
    # Only what changes numbers is compared, so that a machine that joins may keep its data
    # elsewhere.
    base = flat(numbers_of(TrainConfig, about["base"]))
    space = {d["path"]: {k: v for k, v in d.items() if k != "path"} for d in about["space"]}
    # What may differ by call has a role; `space` is compared as what the command line made of it.
    sweep = numbers_of(About, {"sweep": about["sweep"]}, without=tuple(Role))["sweep"]
    sweep = {name: value for name, value in sweep.items() if name != "space"}
    named = {f"space.{p}.{k}": v for p, parts in space.items() for k, v in parts.items()}
    named |= {f"sweep.{name}": value for name, value in flat(sweep).items()}
    # Compared as JSON text, because 1, 1.0 and True are equal in Python.
    return {name: json.dumps(value) for name, value in (base | named).items()}


def check_name(folder: Path) -> None:
    if not NAME.fullmatch(folder.name):
        raise StudyError(
            f"study name: must be letters, digits, '.', '_' or '-', at most 64, got {folder.name!r}"
        )


def read_about(folder: Path) -> dict[str, Any]:
    """The mapping in study.json, checked. Raises StudyError."""
    path = folder / "study.json"
    about = read_json(
        path,
        remedy=f"restore it, {ANOTHER}",
        missing=f"so there is no study in {folder}",
        error=StudyError,
    )
    parse_about(about, str(path))
    # Locks and the ids of trials go by the folder's name, and the storage knows the study's.
    if about["name"] != folder.name:
        raise StudyError(
            f"{path}: is of study {about['name']}, so the folder must be named that, "
            f"got {folder.name}"
        )
    return about


def remember_storage(folder: Path, storage: str) -> None:
    """Notes an address outside of the study's folder, beside the studies: a study itself may come
    from a stranger.
    """
    if storage not in INSIDE and _known_storage(folder) != storage:
        write_json(_note(folder), {"storage": storage})


def refuse_unknown(folder: Path, storage: str) -> None:
    """Raises StudyError for an address that no sweep from here has used. A stranger's study.json
    could send our database password to their server, or have us write to any file.
    """
    read_address(storage, folder)  # a wrong address is reported first
    if storage not in INSIDE and _known_storage(folder) != storage:
        raise StudyError(
            f"{folder / 'study.json'}: names storage {storage}, which no sweep has used from here; "
            f"if you trust it, give it yourself: storage={storage}"
        )


def _known_storage(folder: Path) -> str | None:
    return read_note(_note(folder), "storage")


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
    """`value` as it comes back from JSON."""
    # The stored account went through JSON, which turns tuples into lists. Without the same way
    # through it every study would seem to be another one.
    return json.loads(json.dumps(value, allow_nan=False))
