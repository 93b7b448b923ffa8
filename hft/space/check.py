"""Proves a space: every value of it is valid in at least one composed config."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hft.space.dimension import Dimension, Scalar, is_among
from hft.space.space import Space
from hft.spec import SpecError, UserError

# Random completions of a value before it counts as never valid; a compose costs 0.15 s.
ATTEMPTS = 12
LIMIT = 200  # composes after which a space with mistakes is not searched further
Point = dict[str, Scalar]


def check_space(
    space: Space,
    compose: Callable[[list[str]], dict[str, Any]],
    *,
    seed: int,
    attempts: int = ATTEMPTS,
) -> list[dict[str, Any]]:
    """The plain configs that composed, among them every choice, and both ends of every range.

    `compose` takes the overrides of a point and raises what Hydra or our parse has against it.
    Raises SpecError with the values that are valid in no point, each with the reason. One point
    tries a value of every dimension at once, so a sound space costs about as many composes as its
    longest list has values.
    """
    search = _Search(space, compose, random.Random(seed))
    # A sound point comes first: a value that fails inside it is itself the mistake.
    search.find_any(attempts)
    failures: list[str] = []
    for dimension in space.dimensions:
        for value in dimension.corners():
            if not search.is_proven(dimension.path, value) and len(search.tried) < LIMIT:
                failures += search.prove(dimension, value, attempts)
    if failures:
        raise SpecError("\n".join(dict.fromkeys(failures)))
    return search.configs


@dataclass
class _Search:
    space: Space
    compose: Callable[[list[str]], dict[str, Any]]
    rng: random.Random
    configs: list[dict[str, Any]] = field(default_factory=list)
    good: list[Point] = field(default_factory=list)
    tried: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def is_proven(self, path: str, value: Scalar) -> bool:
        return any(path in point and is_among(value, (point[path],)) for point in self.good)

    def find_any(self, attempts: int) -> None:
        """A first sound point. Raises SpecError where every point has one mistake in common, which
        is then no value's fault.
        """
        while not self.good and attempts:
            self.try_point(self._complete({}, attempt=0))
            attempts -= 1
        said = list(self.tried.values())
        common = [line for line in said[0] if all(line in lines for lines in said)]
        if not self.good and (common or not self.space.dimensions):
            raise SpecError("\n".join(common or said[0]))

    def prove(self, dimension: Dimension, value: Scalar, attempts: int) -> list[str]:
        """[] once a point with the value composed, else the mistakes of the likeliest one."""
        said: list[str] = []
        for attempt in range(attempts):
            point = self._complete(self._forced(dimension, value), attempt)
            lines = self.try_point(point)
            if not lines:
                return []
            # The second attempt puts the value into a sound point: the mistake is the value's.
            if attempt < 2 or not said:
                said = lines
        # An entry of a set that stays on has no override to name.
        override = dimension.override(value) or f"{dimension.path} on"
        return [
            line if line.startswith(f"{dimension.path}:") else f"{override}: {line}"
            for line in said
        ]

    def try_point(self, point: Point) -> list[str]:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        # Points of equal overrides are one config, composed once.
        overrides = self.space.overrides(point)
        key = tuple(overrides)
        if key not in self.tried:
            try:
                self.configs.append(self.compose(overrides))
                self.good.append(point)
                self.tried[key] = []
            except UserError as error:
                self.tried[key] = str(error).splitlines()
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                # Hydra's messages have several lines; a mistake is one.
                self.tried[key] = [" ".join(str(error).split())]
        return self.tried[key]

    def _forced(self, dimension: Dimension, value: Scalar) -> Point:
        """The value, and values of what it is conditional on."""
        known = {d.path: d for d in self.space.dimensions}
        forced: Point = {dimension.path: value}
        pending = [dimension]
        while pending:
            # A dimension that a condition names may have conditions of its own.
            for path, values in pending.pop().when:
                if path not in forced:
                    forced[path] = self.rng.choice(values)
                    pending.append(known[path])
        return forced

    def _complete(self, forced: Point, attempt: int) -> Point:
        """The other values: at the first attempt those not proven yet, at the second those of a
        sound point, then random ones.
        """
        ground = self.rng.choice(self.good) if attempt == 1 and self.good else {}
        point: Point = {}
        for dimension in self.space.dimensions:
            path = dimension.path
            if path not in forced and not dimension.is_active(point):
                continue
            corners = dimension.corners()
            fresh = [v for v in corners if not self.is_proven(path, v)] if attempt == 0 else []
            point[path] = forced.get(path, ground.get(path, self.rng.choice(fresh or corners)))
        return point
