"""Overrides of the command line: `+model.channels=32` has the path `model.channels` and the group
`model`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


def path_of(override: str) -> str:
    """The dotted path that an override sets, without the marks of adding and taking out."""
    return override.lstrip("+~").partition("=")[0]


def group_of(override: str) -> str:
    """The first part of the path: the config group, or the field itself."""
    # A slash nests groups (`hydra/launcher`), an @ puts a group's choice under another path.
    return re.split(r"[./@]", path_of(override))[0]


def of_groups(overrides: list[str], groups: tuple[str, ...]) -> list[str]:
    """The overrides of these groups, without the marks."""
    return [o.lstrip("+~") for o in overrides if group_of(o) in groups]


def parse_overrides(lines: list[str], loader: ConfigLoader | None = None) -> list[Override]:
    """By Hydra's grammar; with a `loader`, glob() knows the choices of a group. Raises Hydra's
    OverrideParseException.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create(config_loader=loader).parse_overrides(lines)


def line_of(override: Override) -> str:
    """The override as it was typed."""
    assert override.input_line is not None, "Hydra's parser keeps the line of each"
    return override.input_line


def value_at(plain: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of plain data."""
    for part in path.split("."):
        if isinstance(plain, Mapping) and part in plain:
            plain = plain[part]
        elif isinstance(plain, list) and part.isdigit() and int(part) < len(plain):
            plain = plain[int(part)]
        else:
            return default
    return plain
