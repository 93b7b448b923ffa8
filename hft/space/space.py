"""A space: dimensions in an order in which conditions stand before what depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hft.config.overrides import value_at
from hft.space.dimension import Dimension, Scalar, is_same, scalar, value_text
from hft.spec import SpecError, did_you_mean

if TYPE_CHECKING:
    import optuna

GRID_LIMIT = 100_000


@dataclass(frozen=True)
class Space:
    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Scalar]:
        # A condition's path stands before what depends on it, so `point` has its value by then.
        point: dict[str, Scalar] = {}
        for dimension in self.dimensions:
            if dimension.is_active(point):
                point[dimension.path] = dimension.suggest(trial)
        return point

    def overrides(self, params: Mapping[str, Scalar]) -> list[str]:
        lines = [d.override(params[d.path]) for d in self.dimensions if d.path in params]
        return [line for line in lines if line is not None]

    def grid(self) -> list[dict[str, Scalar]]:
        """Every point once, the last dimension the fastest; a dimension that a point lacks does not
        multiply it.
        """
        errors = [
            f"{d.path}: a grid needs values: list them, or give a step; got every number from "
            f"{d.low} to {d.high}"
            for d in self.dimensions
            if not d.is_finite
        ]
        if errors:
            raise SpecError("\n".join(errors))
        # One more than allowed is enough to tell, however large the product is.
        points = list(islice(_product(self.dimensions, {}), GRID_LIMIT + 1))
        if len(points) > GRID_LIMIT:
            raise SpecError(
                f"the grid has more than {GRID_LIMIT:,} points; list fewer values, or search: "
                "sweep=tpe"
            )
        return points

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        return {d.path: d.distribution() for d in self.dimensions}

    def fits(self, params: Mapping[str, Any]) -> list[str]:
        """Why a point, which may leave dimensions out, is not in the space; [] when it is."""
        known = {d.path: d for d in self.dimensions}
        lines = [
            f"{path}: no such path in the space"
            f"{did_you_mean(path, list(known)) or _listed(list(known))}"
            for path in params
            if path not in known
        ]
        point = {path: scalar(value) for path, value in params.items()}
        for path in (d.path for d in self.dimensions if d.path in params):
            reason = known[path].refusal(point[path])
            # A point may leave out what a condition names, which then does not clash.
            given = tuple(condition for condition in known[path].when if condition[0] in point)
            # Each condition on its own, so that the message names the one that is not met.
            clash = next(
                (c for c in given if not Dimension(path, when=(c,)).is_active(point)), None
            )
            if reason:
                lines.append(f"{path}: {reason}")
            elif clash:
                lines.append(
                    f"{path}: exists only with {_condition(clash)}, got "
                    f"{clash[0]}={value_text(point[clash[0]])}"
                )
        return lines

    def point(self, params: Mapping[str, Any]) -> dict[str, Scalar]:
        """The point that `params` describe, lists by their text. Raises SpecError where it is not
        in the space.
        """
        lines = self.fits(params)
        if lines:
            raise SpecError("\n".join(lines))
        return {d.path: _exact(d, params[d.path]) for d in self.dimensions if d.path in params}

    def defaults(self, base: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Scalar]:
        """What the base config has in place of each dimension, where that is one of its values."""
        point: dict[str, Scalar] = {}
        for dimension in self.dimensions:
            if not dimension.is_active(point):
                continue
            # The choice of a group is Hydra's and stands nowhere in the config.
            value = choices.get(dimension.path, value_at(base, dimension.path, _ABSENT))
            if is_switch(dimension.path, dimension.choices or ()):
                value = value is not _ABSENT and value is not None
            if value is not _ABSENT and not dimension.refusal(scalar(value)):
                point[dimension.path] = _exact(dimension, value)
        return point

    def plain(self) -> list[dict[str, Any]]:
        return [dimension.plain() for dimension in self.dimensions]

    @classmethod
    def from_plain(cls, plain: list[dict[str, Any]]) -> Space:
        return cls(tuple(Dimension.from_plain(item) for item in plain))


_ABSENT = object()


def _product(
    dimensions: tuple[Dimension, ...], point: dict[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    if not dimensions:
        yield point
        return
    first, rest = dimensions[0], dimensions[1:]
    for extended in (
        [{**point, first.path: v} for v in first.values()] if first.is_active(point) else [point]
    ):
        yield from _product(rest, extended)


def is_switch(path: str, values: tuple[Any, ...]) -> bool:
    """Whether these turn one entry of a set on and off: `features.ofi: [true, false]`."""
    group, _, entry = path.partition(".")
    is_entry = group in ("features", "transforms") and entry and "." not in entry
    return bool(is_entry and values) and all(isinstance(value, bool) for value in values)


def _exact(dimension: Dimension, value: Any) -> Scalar:
    """The value as the dimension itself has it: 1 is 1.0 in a range of floats."""
    value = scalar(value)
    if dimension.choices is not None:
        return next(choice for choice in dimension.choices if is_same(choice, value))
    return value if dimension.integer else float(value)


def _condition(condition: tuple[str, tuple[Scalar, ...]]) -> str:
    return f"{condition[0]}=" + " or ".join(value_text(value) for value in condition[1])


def _listed(known: list[str]) -> str:
    return f"; it has {', '.join(known)}" if known else "; it is empty"
