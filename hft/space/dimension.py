"""One dimension: its values, its distribution for Optuna, and the text of each value that Hydra's
grammar reads back.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

Scalar = None | bool | int | float | str

NO_OVERRIDE = ""  # the text of a value that needs no override: a column that stays on
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Hydra's grammar reads these as null, flags and numbers unless they are quoted.
_RESERVED = ("null", "true", "false", "nan", "inf")
_IN_KEYS = re.compile(r"([\\()\[\]{}:=, \t])")


def value_text(value: Any) -> str:
    """The text behind the `=` of an override that Hydra reads as `value`, of the same type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(value_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{_key_text(str(k))}:{value_text(v)}" for k, v in value.items()) + "}"
        )
    # The shortest text that reads back as the same float.
    return repr(value)


def scalar(value: Any) -> Scalar:
    """The value as studies and tables hold it: lists and mappings by their text."""
    return value_text(value) if isinstance(value, list | tuple | dict) else value


def _key_text(key: str) -> str:
    return _IN_KEYS.sub(r"\\\1", key)  # Hydra's grammar has no quotes here


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return QuotedString(text, Quote.single).with_quotes()


@dataclass(frozen=True)
class Dimension:
    """Either `choices`, with the Hydra text of each, or a range from `low` to `high`, both
    included.

    `when`: paths, each with those of its values under which the dimension exists; all must hold.
    """

    path: str
    # The + or ++ with which every override of the path is written.
    prefix: str = ""
    choices: tuple[Scalar, ...] | None = None
    # Beside the choices, because a switch is true or false in tables and nothing or null to Hydra.
    texts: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()

    def is_active(self, point: dict[str, Scalar]) -> bool:
        return all(path in point and is_among(point[path], values) for path, values in self.when)

    @property
    def is_finite(self) -> bool:
        return self.choices is not None or self.integer or self.step is not None

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of a range: the last step below `high` where the steps
        do not meet it.
        """
        assert self.low is not None, f"{self.path} is a list of choices"
        assert self.high is not None
        if self.step is None:
            return self.low, self.high
        # In decimals, as typed: in floats 0.3 // 0.1 is 2, and the last step would be lost.
        low, step = Decimal(repr(self.low)), Decimal(repr(self.step))
        top = low + (Decimal(repr(self.high)) - low) // step * step
        return self.low, int(top) if self.integer else float(top)

    def corners(self) -> tuple[Scalar, ...]:
        """Every choice, or the two ends of the range."""
        return self.ends if self.choices is None else self.choices

    def values(self) -> tuple[Scalar, ...]:
        """Every value of a finite dimension, in order."""
        if self.choices is not None:
            return self.choices
        low, top = self.ends
        if self.integer:
            return tuple(range(int(low), int(top) + 1, int(self.step or 1)))
        assert self.step is not None, f"{self.path} has no last value"
        first, step = Decimal(repr(low)), Decimal(repr(self.step))
        # 0.1 + 2 * 0.1 would be 0.30000000000000004 in floats: no value that anybody typed.
        return tuple(float(first + i * step) for i in range(round((top - low) / self.step) + 1))

    def text(self, value: Scalar) -> str:
        if self.choices is None:
            return repr(value)
        assert self.texts is not None, "choices come with their texts"
        return next(
            text
            for choice, text in zip(self.choices, self.texts, strict=True)
            if is_same(choice, value)
        )

    def override(self, value: Scalar) -> str | None:
        """The override that sets the value; None where nothing has to be said."""
        text = self.text(value)
        return None if text == NO_OVERRIDE else f"{self.prefix}{self.path}={text}"

    def distribution(self) -> optuna.distributions.BaseDistribution:
        from optuna import distributions

        if self.choices is not None:
            return distributions.CategoricalDistribution(self.choices)
        # The last step, because Optuna would cut the range there itself, with a warning.
        low, top = self.ends
        if self.integer:
            step = int(self.step or 1)
            return distributions.IntDistribution(int(low), int(top), log=self.log, step=step)
        return distributions.FloatDistribution(low, top, log=self.log, step=self.step)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Scalar:
        if self.choices is not None:
            chosen: Scalar = trial.suggest_categorical(self.path, self.choices)
            return chosen
        low, top = self.ends
        if self.integer:
            step = int(self.step or 1)
            return trial.suggest_int(self.path, int(low), int(top), log=self.log, step=step)
        return trial.suggest_float(self.path, low, top, log=self.log, step=self.step)

    def refusal(self, value: Any) -> str:
        """Why `value` is none of the dimension's, "" where it is one."""
        shown = value_text(value)
        if self.choices is not None:
            known = ", ".join(value_text(choice) for choice in self.choices)
            return "" if is_among(value, self.choices) else f"must be one of {known}, got {shown}"
        # A flag is an int to Python, and never a number here.
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float):
            return f"must be {'a whole number' if self.integer else 'a number'}, got {shown}"
        low, top = self.ends
        if not low <= value <= top:
            return f"must be from {low} to {top}, got {value}"
        # The tolerance is that of Optuna's FloatDistribution, which has to take what passes here.
        steps = (value - low) / self.step if self.step else 0.0
        if abs(steps - round(steps)) > 1e-8:
            return f"must be {low} plus a multiple of {self.step}, got {value}"
        return ""

    def plain(self) -> dict[str, Any]:
        """JSON-ready, without what the dimension does not have."""
        fields = {
            k: v
            for k, v in vars(self).items()
            # Not `if v`, because a range may begin at 0.
            if v is not None and v is not False and v not in ("", ())
        }
        when = [[path, list(values)] for path, values in self.when]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()} | (
            {"when": when} if when else {}
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Dimension:
        # JSON has lists alone, and a space that was stored has to equal the one that was read.
        whole: dict[str, Any] = {
            k: tuple(v) if k in ("choices", "texts") else v for k, v in plain.items()
        }
        whole["when"] = tuple((path, tuple(values)) for path, values in plain.get("when", ()))
        return cls(**whole)


def is_same(left: Any, right: Any) -> bool:
    """Equal as Optuna compares choices, but a flag is never a number."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def is_among(value: Any, values: tuple[Scalar, ...]) -> bool:
    return any(is_same(value, other) for other in values)


def is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
