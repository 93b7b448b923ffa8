"""Reads a space: the dimensions of its YAML, and the sweeping overrides of the command line, which
replace dimensions of the same path.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any

from hft.config.groups import SWEEP_GROUPS
from hft.config.hydra_internals import parsed_value, plain_value
from hft.config.overrides import group_of, line_of
from hft.space.conditions import resolve_conditions
from hft.space.dimension import NO_OVERRIDE, Dimension, Scalar, is_finite_number, scalar, value_text
from hft.space.paths import Choices
from hft.space.space import Space, is_switch
from hft.spec import SpecError, did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

DRIVERS = (*SWEEP_GROUPS, "hydra")  # read by the sweep itself, the same in all of its trials
RANGE_KEYS = ("low", "high", "step", "log", "when")
LIST_KEYS = ("values", "when")


def read_space(
    yaml: dict[str, Any],
    overrides: list[Override],
    *,
    base: dict[str, Any],
    choices: dict[str, Any],
    known: dict[str, dict[str, Any]],
) -> tuple[Space, list[str]]:
    """The space, and the overrides that are the same in every point.

    `base` is the plain config of the overrides that do not sweep and `choices` Hydra's group
    choices of it; `known` is `read_groups(conf)`. Raises SpecError with every mistake at once.
    """
    errors: list[str] = []
    varied, fixed = _command_line(overrides, known, errors)
    written = _yaml(yaml, errors)
    from_cli = {d.path: d for d in varied}
    have = Choices(base, choices, known, fixed={_bare(o): o.value() for o in fixed})
    resolved = resolve_conditions(written, from_cli, have, errors)
    for dimension in resolved:
        errors += have.refusals(dimension, resolved)
    if errors:
        raise SpecError("\n".join(dict.fromkeys(errors)))
    return Space(tuple(resolved)), [line_of(o) for o in fixed]


def _bare(override: Override) -> str:
    return override.key_or_group + (f"@{override.package}" if override.package is not None else "")


def _is_drivers(override: Override) -> bool:
    return group_of(override.key_or_group) in DRIVERS


def _command_line(
    overrides: list[Override], known: dict[str, Any], errors: list[str]
) -> tuple[list[Dimension], list[Override]]:
    varied: dict[str, Dimension] = {}
    fixed = [o for o in overrides if not o.is_sweep_override() and not _is_drivers(o)]
    for override in overrides:
        path, line = _bare(override), line_of(override)
        if not override.is_sweep_override():
            continue
        if override.is_delete():
            errors.append(f"{line}: takes out or varies, not both; {path}=... varies it")
        elif _is_drivers(override):
            errors.append(
                f"{line}: belongs to the sweep, so it cannot vary within it; give one value"
            )
        elif path in varied or any(_bare(o) == path for o in fixed):
            errors.append(f"{path}: given twice on the command line, take one out")
        else:
            dimension = _swept(override, path, known, errors)
            if dimension:
                varied[path] = dimension
    return list(varied.values()), fixed


def _swept(
    override: Override, path: str, known: dict[str, Any], errors: list[str]
) -> Dimension | None:
    from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, RangeSweep

    swept, line = parsed_value(override), line_of(override)
    # Every point repeats the mark: Hydra refuses a new key without it.
    prefix = "+" if override.is_add() else "++" if override.is_force_add() else ""
    if isinstance(swept, Glob):
        options = sorted(known.get(path, {}))
        if found := swept.filter(options):
            return _choices(path, found, prefix, errors)
        rest = (
            f"none fits of {', '.join(options)}" if options else f"{path} is none; list its values"
        )
        errors.append(f"{path}: glob() picks among the choices of a group, and {rest}, got {line}")
        return None
    assert isinstance(swept, ChoiceSweep | IntervalSweep | RangeSweep), "Hydra has no other sweeps"
    is_log = "log" in swept.tags
    if swept.tags - {"log"} or (is_log and isinstance(swept, ChoiceSweep)):
        errors.append(f"{path}: the one tag is log, of an interval() or range(), got {line}")
        return None
    if isinstance(swept, IntervalSweep):
        body = {"low": swept.start, "high": swept.end, "log": is_log}
        return _range(path, body, prefix, errors)
    if swept.shuffle:
        errors.append(f"{path}: shuffle() would make another study of every call; take it out")
        return None
    if isinstance(swept, ChoiceSweep):
        return _choices(path, [plain_value(item) for item in swept.list], prefix, errors)
    assert swept.start is not None, "range() needs both of its ends"
    assert swept.stop is not None
    return _steps(
        path, swept.start, swept.stop, swept.step, prefix=prefix, log=is_log, errors=errors
    )


def _steps(
    path: str, start: float, stop: float, step: float, *, prefix: str, log: bool, errors: list[str]
) -> Dimension | None:
    """range(), which leaves its stop out. Downwards it becomes a list, which keeps the order of a
    grid.
    """
    # In decimals: range(0,2.1,0.3) has 7 values, and in floats ceil(2.1 / 0.3) is 8.
    first, end, by = (Decimal(repr(number)) for number in (start, stop, step))
    count = ceil((end - first) / by) if by else 0
    if count < 1:
        errors.append(f"{path}: range({start},{stop},{step}) has no values")
        return None
    whole = all(isinstance(number, int) for number in (start, stop, step))
    number = int if whole else float
    # One value is no range either, which needs low < high.
    if count == 1 or step < 0:
        return _choices(path, [number(first + i * by) for i in range(count)], prefix, errors)
    body = {"low": number(start), "high": number(first + (count - 1) * by), "log": log}
    # Whole numbers step by 1 without a word, and log goes with no step.
    if not whole or step != 1:
        body["step"] = number(step)
    return _range(path, body, prefix, errors)


def _yaml(yaml: dict[str, Any], errors: list[str]) -> dict[str, tuple[Dimension, dict[str, Any]]]:
    """Dimension and its `when` as written, by path. A path that is null was taken out by a later
    YAML.
    """
    found = {}
    for key, body in (yaml or {}).items():
        path = str(key).lstrip("+")
        prefix = str(key)[: len(str(key)) - len(path)]
        if body is None:
            continue
        is_list = isinstance(body, list)
        when = {} if is_list or not isinstance(body, dict) else body.get("when") or {}
        if not isinstance(when, dict):
            errors.append(
                f"{path}.when: must map paths to values, such as {{model: se_tcn}}, got {when!r}"
            )
            continue
        dimension = (
            _choices(path, body, prefix, errors)
            if is_list
            else _mapping(path, body, prefix, errors)
        )
        if dimension:
            found[path] = (dimension, when)
    return found


def _mapping(path: str, body: Any, prefix: str, errors: list[str]) -> Dimension | None:
    if not isinstance(body, dict) or not ({"values", "low", "high"} & set(body)):
        errors.append(
            f"{path}: must be a list of values, {{low, high}} or {{values, when}}, got {body!r}"
        )
        return None
    allowed = LIST_KEYS if "values" in body else RANGE_KEYS
    unknown = [str(key) for key in body if key not in allowed]
    for key in unknown:
        hint = did_you_mean(key, list(allowed)) or f"; one of {', '.join(allowed)}"
        beside = "values" if "values" in body else "low and high"
        errors.append(f"{path}.{key}: no such key beside {beside}{hint}")
    if unknown:
        return None
    if "values" not in body:
        return _range(path, body, prefix, errors)
    if isinstance(body["values"], list):
        return _choices(path, body["values"], prefix, errors)
    errors.append(f"{path}.values: must be a list, got {body['values']!r}")
    return None


def _choices(path: str, values: Sequence[Any], prefix: str, errors: list[str]) -> Dimension | None:
    scalars: list[Scalar] = [scalar(value) for value in values]
    if not scalars:
        errors.append(f"{path}: has no values; give at least one")
    wrong = [v for v in scalars if isinstance(v, float) and not is_finite_number(v)]
    # Optuna compares with ==, so that true and 1 would be one choice.
    twice = [value for i, value in enumerate(scalars) if value in scalars[:i]]
    errors += [f"{path}: values must be finite, got {value}" for value in wrong]
    errors += [
        f"{path}: {value_text(value)} stands twice among its values; take one out"
        for value in twice
    ]
    if not scalars or wrong or twice:
        return None
    # An entry of a set is on where nothing is said of it and off where it is null; `true` would not
    # parse as one.
    switch = is_switch(path, tuple(scalars))
    texts = [(NO_OVERRIDE if v else "null") if switch else value_text(v) for v in values]
    return Dimension(path, prefix, choices=tuple(scalars), texts=tuple(texts))


def _range(path: str, body: dict[str, Any], prefix: str, errors: list[str]) -> Dimension | None:
    step, log = body.get("step"), body.get("log", False)
    numbers: dict[str, Any] = {name: body.get(name) for name in ("low", "high")}
    numbers |= {} if step is None else {"step": step}
    for name, value in numbers.items():
        if not is_finite_number(value):
            errors.append(f"{path}.{name}: must be a number, got {value!r}")
            return None
    # The ends say what is searched: 1 to 3 are whole numbers, 1.0 to 3 are all between.
    integer = all(isinstance(number, int) for number in numbers.values())
    low, high, *rest = (number if integer else float(number) for number in numbers.values())
    given = f"low={body['low']}, high={body['high']}"
    reasons = {
        f"{path}.log: must be true or false, got {log!r}": not isinstance(log, bool),
        f"{path}: low must be < high, got {given}": low >= high,
        f"{path}: a logarithmic range needs low > 0, got low={body['low']}": log is True
        and low <= 0,
        f"{path}.step: must be > 0, got {step}": step is not None and step <= 0,
        f"{path}: step and log exclude each other; take one out": log is True and step is not None,
    }
    broken = [reason for reason, applies in reasons.items() if applies]
    errors += broken
    if broken:
        return None
    dimension = Dimension(
        path, prefix, low=low, high=high, step=rest[0] if rest else None, log=log, integer=integer
    )
    bottom, top = dimension.ends
    if top > bottom:
        return dimension
    errors.append(f"{path}.step: must be at most high - low, got step={step} from {low} to {high}")
    return None
