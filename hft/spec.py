"""Typed, frozen, strict specs: plain data in, checked objects out, every mistake at once.

In: what Hydra composed, as plain dicts, lists and scalars. Out: one frozen pydantic object, or one
SpecError that lists every wrong field with its path, value, rule and a suggestion. A config chooses
a `kind` among our modules by file name (by class in a room of families, such as features) and can
name no code. To add a spec: subclass Kind in its room, give each field a type, a range and a
description with its unit, and no default; the number stands in YAML. A field that changes no
number of a run says so by its Role.
"""

from __future__ import annotations

import difflib
import enum
import functools
import hashlib
import importlib
import json
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import pydantic
from pydantic import Field

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

PACKAGE = Path(__file__).parent


class UserError(ValueError):
    """Something the user can mend: the entry points print it without a traceback and exit with
    status 2.
    """


class SpecError(UserError):
    """Fields of a config that break a rule, one line each."""


class Spec(pydantic.BaseModel):
    # Strict, because "3" for 3 is a slip of the YAML. No unknown field, because one that is ignored
    # would look as if it were used. No nan and no infinity: JSON, in which specs are stored and
    # hashed, has neither.
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

    def __init__(self, **fields: Any) -> None:
        """A spec constructed by hand need not name its kind: its class says it already."""
        names = _kinds_of(type(self))
        super().__init__(**({"kind": names[0]} if len(names) == 1 else {}) | fields)

    # Declared as pydantic's own, so that validation does not come here: YAML and stored data have
    # to name their kind, and pydantic would leave its JSON mode, where a list passes for a tuple.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # mypy knows none of a function


S = TypeVar("S", bound=Spec)


class Role(enum.Enum):
    """What a field is to a run: `Annotated[str, Role.PLACE]`. A field without one changes the
    numbers.
    """

    PLACE = "where something lies on this machine"
    SHOWN = "what is printed, logged, or kept on the way; no number depends on it"
    # A run of more days has other numbers, each of its days has the same.
    EXTENT = "how much is asked for, such as days or trials, each the same whatever it is"


INERT = (Role.PLACE, Role.SHOWN)  # change no number of a run


@dataclass(frozen=True)
class Room:
    """Marks a config field as a choice: `Annotated[BarSpec, Room("hft.market.bars")]`, or a dict of
    such for a set.

    `module` is a package with one kind per file, or with `families=True` one with several kinds per
    file.
    """

    module: str
    families: bool = False

    def names(self) -> list[str]:
        """Kinds on offer, for messages; imports nothing unless the room keeps families."""
        return sorted(self.specs()) if self.families else self._files()

    def specs(self) -> dict[str, type[Kind]]:
        """Every kind of the room; imports all of its modules."""
        return {kind: spec for name in self._files() for kind, spec in self._kinds(name).items()}

    def load(self, kind: str) -> type[Kind] | None:
        """The spec class of `kind`, importing only its own module where files name kinds; None when
        there is none.
        """
        if self.families:
            return self.specs().get(kind)
        return self._kinds(kind)[kind] if kind in self._files() else None

    def class_of(self, plain: Any) -> type[Kind] | None:
        """The class of plain data with a `kind`; None where the kind is none of the room's."""
        kind = plain.get("kind") if isinstance(plain, dict) else None
        return self.load(kind) if isinstance(kind, str) and _KIND.fullmatch(kind) else None

    def _files(self) -> list[str]:
        folder = PACKAGE.joinpath(*self.module.split(".")[1:])
        # An underscore marks a helper of the folder, which is no kind (docs/house.md).
        return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))

    def _kinds(self, name: str) -> dict[str, type[Kind]]:
        module = importlib.import_module(f"{self.module}.{name}")
        specs = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Kind)
            # A base class or another kind that the module imports is none of its own.
            and value.__module__ == module.__name__
        ]
        return {kind: spec for spec in specs for kind in _kinds_of(spec)}


# No dot, slash or leading underscore, so that a kind reaches no other module. It is always matched
# with fullmatch, because `$` would let a final newline pass.
_KIND = re.compile(r"[a-z][a-z0-9_]*")


def _kinds_of(spec: type[Kind]) -> tuple[str, ...]:
    return get_args(spec.model_fields["kind"].annotation)


def room_of(field: FieldInfo) -> Room | None:
    return next((m for m in field.metadata if isinstance(m, Room)), None)


def role_of(field: FieldInfo) -> Role | None:
    return next((m for m in field.metadata if isinstance(m, Role)), None)


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
        room = room_of(field)
        # pydantic reports below what is missing.
        if room is None or name not in plain:
            continue
        if _is_set(field.annotation):
            annotation, plain[name] = _narrow_set(name, room, plain[name], errors)
        else:
            annotation = _narrow(name, room, plain[name], errors)
        # A field whose kind is unknown is reported once and left out; the others are checked all
        # the same.
        narrowed[name] = (Any, ...) if annotation is None else (annotation, field)
    # A class for this call alone: the next config may choose other kinds.
    model = pydantic.create_model(cls.__name__, __base__=cls, **narrowed) if narrowed else cls
    try:
        # By way of JSON: in strict mode pydantic refuses a Python list for a tuple, and YAML has
        # lists alone.
        config = model.model_validate_json(json.dumps(plain))
    except pydantic.ValidationError as error:
        errors += [_message(cls, plain, e) for e in error.errors(include_url=False)]
    if errors:
        raise SpecError("\n".join(sorted(dict.fromkeys(errors))))
    return config


def numbers_of(
    cls: type[Spec],
    plain: dict[str, Any],
    *,
    without: tuple[Role, ...] = INERT,
) -> dict[str, Any]:
    """`plain` data of a spec without the fields of these roles, at every depth: what is left
    changes numbers. What `cls` does not know stays.
    """
    kept: dict[str, Any] = _numbers(cls, plain, without)
    return kept


def _numbers(owner: Any, plain: Any, without: tuple[Role, ...]) -> Any:
    if not isinstance(plain, dict):
        return plain
    roles = {name: role_of(field) for name, field in _fields(owner).items()}
    return {
        name: _numbers(_below(owner, name, value), value, without)
        for name, value in plain.items()
        if roles.get(name) not in without
    }


def roles_of(cls: type[Spec], plain: dict[str, Any]) -> dict[str, Role]:
    """Dotted path -> role of every field of a spec that has one, also where `plain` lacks the
    field.
    """
    return dict(_roles(cls, plain, ""))


def _roles(owner: Any, plain: Any, path: str) -> Iterator[tuple[str, Role]]:
    entries = plain if isinstance(plain, dict) else {}
    for name in dict.fromkeys([*_fields(owner), *entries]):
        field = _fields(owner).get(name)
        if role := role_of(field) if field else None:
            yield f"{path}{name}", role
        else:
            value = entries.get(name)
            yield from _roles(_below(owner, name, value), value, f"{path}{name}.")


def _fields(owner: Any) -> dict[str, FieldInfo]:
    is_spec = isinstance(owner, type) and issubclass(owner, Spec)
    return owner.model_fields if is_spec else {}


def _below(owner: Any, name: Any, value: Any) -> Any:
    """What the plain `value` called `name` inside `owner` is: a spec's class, the Room of a set of
    kinds, an annotation, or None where nothing is known of it.
    """
    if isinstance(owner, Room):
        return owner.class_of(value)
    if _is_set(owner):
        return get_args(owner)[1]
    field = _fields(owner).get(str(name))
    room = room_of(field) if field else None
    if field is None or room is None:
        return field.annotation if field else None
    return room if _is_set(field.annotation) else room.class_of(value)


def _with_before(owner: Any, value: Any) -> Any:
    """Stored data with the fields that did not exist then, wherever the class of their owner is
    known.
    """
    if not isinstance(value, dict):
        return value
    full = dict(value)
    for name, field in _fields(owner).items():
        extra = field.json_schema_extra
        if name not in full and isinstance(extra, dict) and "before" in extra:
            full[name] = extra["before"]
    return {name: _with_before(_below(owner, name, item), item) for name, item in full.items()}


def _is_set(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _narrow(path: str, room: Room, value: Any, errors: list[str]) -> type[Kind] | None:
    if not isinstance(value, dict) or "kind" not in value:
        errors.append(
            f"{path}: must be a mapping with a 'kind', got {value!r}; one of "
            f"{', '.join(room.names())}"
        )
        return None
    kind = value["kind"]
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        errors.append(
            f"{path}.kind: must be the name of a kind (a config cannot name code), got {kind!r}; "
            f"one of {', '.join(room.names())}"
        )
        return None
    spec = room.load(kind)
    if spec is None:
        names = room.names()
        hint = did_you_mean(kind, names)
        errors.append(f"{path}.kind: no such kind {kind!r}{hint} (one of {', '.join(names)})")
    return spec


def _narrow_set(name: str, room: Room, value: Any, errors: list[str]) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        errors.append(f"{name}: must be a mapping of names to {{kind, ...}}, got {value!r}")
        return None, value
    entries = {key: entry for key, entry in value.items() if entry is not None}
    specs = {key: _narrow(f"{name}.{key}", room, entry, errors) for key, entry in entries.items()}
    known = {key: entry for key, entry in entries.items() if specs[key] is not None}
    classes = list(dict.fromkeys(spec for spec in specs.values() if spec is not None))
    if not classes:
        # The field's own rules (min_length) judge an empty set.
        return (None if entries else dict[str, Any]), known
    union: Any = functools.reduce(operator.or_, classes)
    # With the tag pydantic reports the mistakes of the chosen kind, not those of every member. It
    # takes no tag for a union of one class.
    if len(classes) > 1:
        union = Annotated[union, Field(discriminator="kind")]
    return GenericAlias(dict, (str, union)), known


def _message(cls: type[Spec], plain: Any, error: ErrorDetails) -> str:
    """`path: rule, got value, suggestion` of one pydantic error."""
    owner: Any = cls
    parent, value, path = owner, plain, []
    for part in error["loc"]:
        if isinstance(value, dict) and part not in value and part == value.get("kind"):
            continue  # pydantic's union tag, no part of the user's path
        value = value.get(part, value) if isinstance(value, dict) else _item(value, part)
        parent, owner = owner, _below(owner, part, value)
        path.append(str(part))
    where = ".".join(path) or "config"
    fields = _fields(parent)
    field = fields.get(path[-1]) if path else None
    description = (field.description if field else None) or "required"
    if error["type"] == "extra_forbidden":
        label = getattr(parent, "__name__", "this mapping")
        hint = did_you_mean(path[-1], list(fields)) or f", its fields: {', '.join(fields)}"
        return f"{where}: {label} has no such field{hint}"
    if error["type"] == "missing":
        return f"{where}: must be given ({description})"
    # OmegaConf's mark of a value that whoever starts the run has to give.
    if value == "???":
        return f"{where}: has no value yet ({description}); set it on the command line: {where}=..."
    rule = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    # The message of a validator of ours names the value already.
    return f"{where}: {rule}" + ("" if error["type"] == "value_error" else f", got {value!r}")


def _item(value: Any, part: Any) -> Any:
    is_inside = isinstance(value, list) and isinstance(part, int) and part < len(value)
    return value[part] if is_inside else value
