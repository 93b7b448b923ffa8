"""The paths and choices that exist: those of the base config, and the fields of every option of a
group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hft.config.groups import OVERLAYS, SETS
from hft.config.overrides import value_at
from hft.space.dimension import Dimension, is_among, scalar, value_text
from hft.space.space import is_switch
from hft.spec import did_you_mean

# None cannot say it: null is a value of a config.
_MISSING = object()


@dataclass(frozen=True)
class Choices:
    """The config that a space varies: `fixed` are the values that the command line gives once, by
    bare path.
    """

    base: dict[str, Any]
    groups: dict[str, Any]
    known: dict[str, dict[str, Any]]
    fixed: dict[str, Any]

    def has(self, path: str, values: tuple[Any, ...]) -> bool:
        """Whether the config has one of the values at a path that is no dimension."""
        if path in SETS:  # several files can be chosen together: columns tell, names do not
            return any(self._has_sets(path, _names(value)) for value in values)
        if path in self.fixed:
            return is_among(scalar(self.fixed[path]), values)
        if path in self.groups:
            return is_among(self.groups[path], values)
        value = value_at(self.base, path)
        # Of an entry of a set, true and false ask whether it is there.
        return is_among(value is not None if is_switch(path, values) else scalar(value), values)

    def _has_sets(self, group: str, names: list[str]) -> bool:
        wanted = {column for name in names for column in self.known[group][name]}
        chosen = [self.base.get(group) or {}]
        if group in self.fixed:
            chosen = [self.known[group].get(name, {}) for name in _names(scalar(self.fixed[group]))]
        # A set that the command line thinned (`~features.amihud`) is still the set that was chosen.
        taken_out = {path.partition(".")[2] for path in self.fixed}
        return wanted <= {column for columns in chosen for column in columns} | taken_out

    def exists(self, path: str) -> bool:
        """Whether the path is anywhere: in the base, or in any option of its group."""
        return path in self.known or path in self._paths()

    def refusals(self, dimension: Dimension, dimensions: list[Dimension]) -> list[str]:
        """Why no config has this path or these options."""
        path = dimension.path
        if path in self.known:
            if dimension.choices is not None:
                return self.unknown_options(path, dimension.choices)
            offered = ", ".join(self.known[path])
            return [f"{path}: is a choice among {offered}; list those to try, a range cannot"]
        # `+` and `++` may add a path that nobody knows, and @ moves one: Hydra decides.
        if dimension.prefix or "@" in path:
            return []
        varied = {d.path: d for d in dimensions}
        # An overlay can choose any kind, so that the path need only exist in some option.
        if any(overlay in varied for overlay in OVERLAYS):
            return [] if self.exists(path) else [self.no_such_path(path)]
        group = path.partition(".")[0]
        if group not in self.known:
            found = value_at(self.base, path, _MISSING) is not _MISSING
            return [] if found else [self.no_such_path(path)]
        options = self._options(dimension, varied.get(group))
        without = [option for option in options if not self._has_field(path, option)]
        if not without:
            return []
        if len(without) == len(options):
            return [self.no_such_path(path, given=f"{group}=" + " or ".join(map(str, without)))]
        rest = " or ".join(map(str, without))
        return [
            f"{path}: does not exist with {group}={rest}; say in a file of conf/sweep with which "
            f"it does (when: {{{group}: ...}}), or take {rest} out"
        ]

    def _options(self, dimension: Dimension, varied: Dimension | None) -> tuple[Any, ...]:
        """The choices of its group under which a dimension may exist."""
        group = dimension.path.partition(".")[0]
        if varied:
            return dict(dimension.when).get(group, varied.choices or ())
        return (scalar(self.fixed.get(group, self.groups.get(group))),)

    def _has_field(self, path: str, option: Any) -> bool:
        group, _, tail = path.partition(".")
        bodies = [self.known[group].get(name, {}) for name in _names(option)]
        # Both are None for a set that the command line does not name.
        if option == self.groups.get(group):
            bodies.append(self.base.get(group) or {})
        return any(value_at(body, tail, _MISSING) is not _MISSING for body in bodies)

    def no_such_path(self, path: str, given: str = "") -> str:
        group, _, tail = path.partition(".")
        homes = [
            name
            for name, body in self.known.get(group, {}).items()
            if value_at(body, tail, _MISSING) is not _MISSING
        ]
        if homes:
            here = f" with {given}" if given else ""
            return f"{path}: no such path{here}; it exists with {group}={' or '.join(homes)}"
        hint = did_you_mean(path, sorted(self._paths())) or self._siblings(path)
        return f"{path}: no such path in the config{hint}"

    def _siblings(self, path: str) -> str:
        parent = value_at(self.base, path.rpartition(".")[0]) if "." in path else self.base
        return f"; there are {', '.join(parent)}" if isinstance(parent, dict) and parent else ""

    def unknown_options(self, group: str, values: Iterable[Any]) -> list[str]:
        known = list(self.known[group])
        names = dict.fromkeys(name for value in values for name in _names(value))
        hints = {
            name: did_you_mean(name, known) or f", one of {', '.join(known)}" for name in names
        }
        return [
            f"{group}: no such choice {name!r}{hint}"
            for name, hint in hints.items()
            if name not in known
        ]

    def _paths(self) -> set[str]:
        bodies = [
            (group, body) for group, options in self.known.items() for body in options.values()
        ]
        # Overlays are merged at the root (`@package _global_`), so their paths begin with no group.
        own = {
            f"{group}.{path}"
            for group, body in bodies
            if group not in OVERLAYS
            for path in _dotted(body)
        }
        return (
            own
            | set(_dotted(self.base))
            | {path for group, b in bodies if group in OVERLAYS for path in _dotted(b)}
        )


def _names(choice: Any) -> list[str]:
    """The options that a choice of a group names: of a set, several."""
    if choice is None:
        return []
    if not isinstance(choice, str):
        return [value_text(choice)]
    return [name.strip("' ") for name in re.split(r"[\[\],]", choice) if name.strip("' ")]


def _dotted(body: Any, before: str = "") -> Iterable[str]:
    for key, value in body.items() if isinstance(body, dict) else ():
        yield f"{before}{key}"
        yield from _dotted(value, f"{before}{key}.")
