"""Decides `when`: a condition on a path that does not vary holds or not; dimensions with other
conditions come after those that the conditions name, so that a trial can choose in this order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hft.space.dimension import Dimension, Scalar, scalar
from hft.space.paths import Choices
from hft.spec import did_you_mean

Written = dict[str, tuple[Dimension, dict[str, Any]]]
Conditions = dict[str, tuple[Scalar, ...]]


def resolve_conditions(
    written: Written, given: dict[str, Dimension], have: Choices, errors: list[str]
) -> list[Dimension]:
    """The dimensions that can exist, in the order of a trial.

    `written` are the YAML's, each with its `when` as written. `given` are the command line's: one
    replaces the YAML's of the same path and keeps its conditions.
    """
    conditions = {
        path: _read(path, when, written, have, errors) for path, (_, when) in written.items()
    }
    # A path to which the command line gives one value does not vary any more.
    dimensions = {
        path: dimension for path, (dimension, _) in written.items() if path not in have.fixed
    } | given
    # In the YAML's order, so that a dimension which the command line replaces keeps its place.
    dimensions = {
        path: dimensions[path] for path in [*(p for p in written if p in dimensions), *given]
    }
    gone: set[str] = set()
    # A dimension that cannot exist takes along those whose conditions name it, and so on.
    while True:
        kept = {p: d for p, d in dimensions.items() if p not in gone}
        whens = {p: _decide(conditions.get(p, {}), kept, gone, have) for p in kept}
        absent = {p for p, when in whens.items() if when is None}
        if not absent:
            break
        gone |= absent
    return _ordered({p: replace(d, when=tuple(whens[p].items())) for p, d in kept.items()}, errors)


def _read(
    path: str, when: dict[str, Any], written: Written, have: Choices, errors: list[str]
) -> Conditions:
    found: Conditions = {}
    for on, value in when.items():
        values = tuple(scalar(v) for v in (value if isinstance(value, list) else [value]))
        refused = _refused(on, values, written, have)
        errors += [f"{path}.when: {reason}" for reason in refused]
        if not refused:
            found[on] = values
    return found


def _refused(on: str, values: tuple[Scalar, ...], written: Written, have: Choices) -> list[str]:
    """Why a condition is wrong, [] where it is not. It may name options that the YAML's dimension
    leaves out, since the command line can add them, but not such options alone.
    """
    if on not in written and not have.exists(on):
        return [f"{on}: no such path in the space{did_you_mean(on, [*written, *have.known])}"]
    refused = (
        [reason for reason in map(written[on][0].refusal, values) if reason]
        if on in written
        else []
    )
    if on not in have.known:
        return [f"{on}: {reason}" for reason in refused]
    return have.unknown_options(on, values) or [
        f"{on}: {r}" for r in refused if len(refused) == len(values)
    ]


def _decide(
    conditions: Conditions, dimensions: dict[str, Dimension], gone: set[str], have: Choices
) -> Any:
    """The conditions that points have to meet, or None where no point can meet them."""
    left: Conditions = {}
    for on, values in conditions.items():
        if on in dimensions:
            # The command line may vary fewer values than the YAML's condition names.
            possible = tuple(v for v in values if not dimensions[on].refusal(v))
            if not possible:
                return None
            left[on] = possible
        # What does not vary is decided here, and is no condition of a trial.
        elif on in gone or not have.has(on, values):
            return None
    return left


def _ordered(dimensions: dict[str, Dimension], errors: list[str]) -> list[Dimension]:
    """As written, but conditions before what depends on them."""
    waiting = dict(dimensions)
    ordered: list[Dimension] = []
    while waiting:
        done = {d.path for d in ordered}
        ready = next((d for d in waiting.values() if all(on in done for on, _ in d.when)), None)
        if ready is None:
            circle = ", ".join(
                f"{d.path} (when {', '.join(on for on, _ in d.when)})" for d in waiting.values()
            )
            errors.append(f"when: conditions in a circle: {circle}; take one of them out")
            return ordered
        ordered.append(waiting.pop(ready.path))
    return ordered
