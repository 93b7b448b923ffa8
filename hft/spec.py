"""Typed, frozen, strict specs: plain data in, checked objects out, every mistake at once.

In: what Hydra composed, as plain dicts, lists and scalars. Out: one frozen pydantic object, or one
SpecError that lists every wrong field with its path, value, rule and a suggestion. A config chooses
a `kind` among our modules by file name (by class in a room of families, such as features) and can
name no code. To add a spec: subclass Kind in its room, give each field a type, a range and a
description with its unit, and no default; the number stands in YAML.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import json
import operator
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import pydantic
from pydantic import Field

PACKAGE = Path(__file__).parent


class UserError(ValueError):
    """Something the user can mend: the entry points print it without a traceback and exit with
    status 2.
    """


class SpecError(UserError):
    """Fields of a config that break a rule, one line each."""


class Spec(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    def plain(self) -> dict[str, Any]:
        """JSON-ready data from which `parse` makes an equal spec."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        return fingerprint(self.plain())


class Kind(Spec):
    """A spec that a room offers by name; subclasses narrow `kind` to a Literal of their own
    name.
    """

    kind: str


S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Room:
    """Marks a config field as a choice: `Annotated[BarSpec, Room("hft.market.bars")]`, or a dict of
    such for a set.

    `module` is a package with one kind per file, or with `families=True` one with several kinds per
    file, or a plain module that holds its few kinds itself. `base` narrows a module of several
    groups to the subclasses of that name.
    """

    module: str
    families: bool = False
    base: str = ""

    def names(self) -> list[str]:
        """Kinds on offer, for messages; imports nothing unless the room keeps families."""
        if self._folder().is_dir() and not self.families:
            return _module_names(self._folder())
        return sorted(self.specs())

    def specs(self) -> dict[str, type[Kind]]:
        """Every kind of the room; imports all of its modules."""
        names = _module_names(self._folder()) if self._folder().is_dir() else []
        modules = [importlib.import_module(f"{self.module}.{n}") for n in names] or [
            importlib.import_module(self.module)
        ]
        found = {kind: spec for module in modules for kind, spec in _kinds_in(module).items()}
        return {
            k: s
            for k, s in found.items()
            if not self.base or self.base in (c.__name__ for c in s.__mro__)
        }

    def load(self, kind: str) -> type[Kind] | None:
        """The spec class of `kind`, importing only its own module where files name kinds; None when
        there is none.
        """
        if self.families or not self._folder().is_dir():
            return self.specs().get(kind)
        if kind not in self.names():
            return None
        return _kinds_in(importlib.import_module(f"{self.module}.{kind}"))[kind]

    def _folder(self) -> Path:
        return PACKAGE.joinpath(*self.module.split(".")[1:])


def fingerprint(plain: Any) -> str:
    """sha256 hex of JSON-ready data, independent of key order."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def parse(cls: type[S], plain: dict[str, Any], *, stored: bool = False) -> S:
    """The config that `plain` describes. Raises SpecError with one line per wrong field, all of
    them at once.

    Null entries of a set (a feature switched off by an overlay) are dropped before anything is
    checked. In `stored` data, and there alone, a field added since has the value that it names to
    reproduce the old behaviour: `json_schema_extra={"before": value}`.
    """
    plain = _with_before(cls, plain) if stored else dict(plain)
    errors: list[str] = []
    narrowed: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        room = next((m for m in field.metadata if isinstance(m, Room)), None)
        if room is None or name not in plain:
            continue
        if _is_set(field.annotation):
            narrowed[name], plain[name] = _narrow_set(name, room, plain[name], errors)
        else:
            narrowed[name] = _narrow(name, room, plain[name], errors)
    broken = [name for name, annotation in narrowed.items() if annotation is None]
    # A field whose kind is unknown is reported once and left out; the others are checked all the
    # same.
    fields = {n: (a, cls.model_fields[n]) for n, a in narrowed.items() if a is not None}
    fields |= {n: (Any, ...) for n in broken}
    model = pydantic.create_model(cls.__name__, __base__=cls, **fields)
    plain = _with_before(model, plain) if stored else plain
    try:
        config = model.model_validate_json(json.dumps(plain))
    except pydantic.ValidationError as error:
        errors += [_message(model, plain, e) for e in error.errors(include_url=False)]
    if errors:
        raise SpecError("\n".join(sorted(dict.fromkeys(errors))))
    return config


def _with_before(owner: Any, value: Any) -> Any:
    """Stored data with the fields that did not exist then, wherever the class of their owner is
    known.
    """
    if not isinstance(value, dict):
        return value
    if _is_set(owner):
        return {
            key: _with_before(_annotation_at(owner, key, value), entry)
            for key, entry in value.items()
        }
    full = dict(value)
    for name, field in (
        owner.model_fields.items() if isinstance(owner, type) and issubclass(owner, Spec) else ()
    ):
        extra = field.json_schema_extra
        if name not in full and isinstance(extra, dict) and "before" in extra:
            full[name] = extra["before"]
        if name in full:
            full[name] = _with_before(field.annotation, full[name])
    return full


def _module_names(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def _kinds_in(module: Any) -> dict[str, type[Kind]]:
    found = {}
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Kind)
            and value.__module__ == module.__name__
        ):
            for kind in get_args(value.model_fields["kind"].annotation):
                found[kind] = value
    return found


def _is_set(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _narrow(path: str, room: Room, value: Any, errors: list[str]) -> type[Kind] | None:
    if not isinstance(value, dict) or "kind" not in value:
        errors.append(
            f"{path}: must be a mapping with a 'kind', got {value!r}; one of {', '.join(room.names())}"
        )
        return None
    kind = value["kind"]
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", kind):
        errors.append(
            f"{path}.kind: must be the name of a kind (a config cannot name code), got {kind!r}; "
            f"one of {', '.join(room.names())}"
        )
        return None
    spec = room.load(kind)
    if spec is None:
        names = room.names()
        errors.append(
            f"{path}.kind: no such kind {kind!r}{did_you_mean(kind, names)} (one of {', '.join(names)})"
        )
    return spec


def _narrow_set(name: str, room: Room, value: Any, errors: list[str]) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        errors.append(f"{name}: must be a mapping of names to {{kind, ...}}, got {value!r}")
        return None, value
    entries = {key: entry for key, entry in value.items() if entry is not None}
    specs = {key: _narrow(f"{name}.{key}", room, entry, errors) for key, entry in entries.items()}
    known = {key: entry for key, entry in entries.items() if specs[key] is not None}
    classes = tuple(dict.fromkeys(s for s in specs.values() if s is not None))
    if not classes:
        return (None if entries else dict[str, Any]), known
    if len(classes) == 1:
        return dict[str, classes[0]], known
    union = functools.reduce(operator.or_, classes)
    return dict[str, Annotated[union, Field(discriminator="kind")]], known


def _message(model: type[Spec], plain: Any, error: dict[str, Any]) -> str:
    """`path: rule, got value, suggestion` of one pydantic error."""
    owner, value, path = model, plain, []
    for part in error["loc"]:
        if isinstance(value, dict) and part not in value and part == value.get("kind"):
            continue  # pydantic's union tag, no part of the user's path
        owner = _annotation_at(owner, part, value)
        value = value.get(part, value) if isinstance(value, dict) else _item(value, part)
        path.append(str(part))
    where = ".".join(path) or "config"
    parent = _annotation_at_path(model, plain, path[:-1])
    if error["type"] == "extra_forbidden":
        known = (
            list(parent.model_fields)
            if isinstance(parent, type) and issubclass(parent, Spec)
            else []
        )
        label = getattr(parent, "__name__", "this mapping")
        return f"{where}: {label} has no such field{did_you_mean(path[-1], known) or ', its fields: ' + ', '.join(known)}"
    if error["type"] == "missing":
        return f"{where}: must be given ({_description(parent, path[-1])})"
    if value == "???":
        return f"{where}: has no value yet ({_description(parent, path[-1])}); set it on the command line: {where}=..."
    rule = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{where}: {rule}" + ("" if error["type"] == "value_error" else f", got {value!r}")


def _annotation_at_path(model: type[Spec], plain: Any, path: list[str]) -> Any:
    owner, value = model, plain
    for part in path:
        owner = _annotation_at(owner, part, value)
        value = value.get(part) if isinstance(value, dict) else _item(value, part)
    return owner


def _annotation_at(owner: Any, part: Any, value: Any) -> Any:
    """The annotation of `part` inside `owner`: a spec's field, or the member of a set's union with
    the entry's kind.
    """
    if isinstance(owner, type) and issubclass(owner, Spec):
        field = owner.model_fields.get(str(part))
        return field.annotation if field else None
    if _is_set(owner):
        member = get_args(owner)[1]
        choices = get_args(get_args(member)[0]) if hasattr(member, "__metadata__") else (member,)
        kind = (
            value[part].get("kind")
            if isinstance(value, dict) and isinstance(value.get(part), dict)
            else None
        )
        for choice in choices:
            is_kind = isinstance(choice, type) and issubclass(choice, Kind)
            if is_kind and kind in get_args(choice.model_fields["kind"].annotation):
                return choice
        return member
    return None


def _item(value: Any, part: Any) -> Any:
    return (
        value[part]
        if isinstance(value, list) and isinstance(part, int) and part < len(value)
        else value
    )


def _description(parent: Any, name: str) -> str:
    field = (
        parent.model_fields.get(name)
        if isinstance(parent, type) and issubclass(parent, Spec)
        else None
    )
    return (field.description if field else None) or "required"
