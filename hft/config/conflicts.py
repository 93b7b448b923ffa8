"""What Hydra merges without a word, refused: numbers meant for another kind, one name defined
twice, and keys that would be ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hft.config.groups import OVERLAYS, SETS, SWEEP_GROUPS, included
from hft.config.overrides import of_groups, parse_overrides, path_of
from hft.spec import SpecError
from hft.system.conf import CONF, read_yaml


def overlay_conflicts(
    choices: dict[str, Any], overrides: list[str], *, conf: Path = CONF
) -> list[str]:
    """One line per group whose kind an experiment chose and filled in, and the command line then
    replaced.

    Hydra merges the experiment's numbers into the other kind: 10 trades would become 10 dollars.
    """
    given = {path_of(override) for override in overrides}
    lines = []
    for overlay in OVERLAYS:
        name = choices.get(overlay)
        body = _read(conf / overlay / f"{name}.yaml")
        for group, kind in _chosen(body).items():
            # A list chooses sets, which set_conflicts judges.
            if group not in choices or not isinstance(kind, str) or choices[group] == kind:
                continue
            set_by_it = {f"{group}.{k}": v for k, v in (body.get(group) or {}).items()}
            # What the command line gives too was meant for its own choice.
            left = [f"{path}={value}" for path, value in set_by_it.items() if path not in given]
            if left:
                lines.append(
                    f"{group}: {overlay}={name} chose {kind!r} and sets {', '.join(left)}; the "
                    f"command line chose {choices[group]!r}, for which these were not meant; give "
                    f"each on the command line too, or take it out: ~{path_of(left[0])}"
                )
    return lines


def _chosen(overlay: dict[str, Any]) -> dict[str, Any]:
    """Group -> the choice that an overlay makes in its `defaults` list."""
    listed = [item for item in overlay.get("defaults", []) if isinstance(item, dict)]
    return {
        group.removeprefix("override ").lstrip("/"): choice
        for item in listed
        for group, choice in item.items()
    }


def set_conflicts(choices: dict[str, Any], overrides: list[str], *, conf: Path = CONF) -> list[str]:
    """One line per name that two chosen sets define differently, with both files; Hydra keeps the
    later one.
    """
    lines = []
    for group in SETS:
        seen: dict[str, tuple[str, Any]] = {}
        for file, name, entry in _chosen_entries(group, choices, overrides, conf):
            first, defined = seen.setdefault(name, (file, entry))
            if defined != entry:
                lines.append(
                    f"{group}.{name}: defined differently in {first} and {file}; rename one, or "
                    "leave one out"
                )
    return lines


def _chosen_entries(
    group: str, choices: dict[str, Any], overrides: list[str], conf: Path
) -> Iterator[tuple[str, str, Any]]:
    """(file, name, definition) of every entry of the chosen sets and of those that they include."""
    # Hydra's choices leave out a group whose choice is a list, so the command line is asked for it.
    chosen = choices.get(group) or []
    for override in parse_overrides(overrides):
        if override.key_or_group == group and isinstance(override.value(), list):
            chosen = override.value()
    # A stack whose top comes first, so that a message names the earlier file first.
    pending = [chosen] if isinstance(chosen, str) else [str(name) for name in reversed(chosen)]
    while pending:
        path = conf / group / f"{pending.pop()}.yaml"
        body = _read(path)
        pending += reversed(included(body))
        yield from ((f"conf/{group}/{path.name}", name, entry) for name, entry in body.items())


def _read(path: Path) -> dict[str, Any]:
    return read_yaml(path) if path.is_file() else {}


def refuse_sweep_keys(overrides: list[str]) -> None:
    """Raises SpecError for `sweep...` and `launcher...` on a single run, where they would be
    ignored.
    """
    ignored = of_groups(overrides, SWEEP_GROUPS)
    if ignored:
        raise SpecError(f"{', '.join(ignored)}: only a sweep reads this; add -m or take it out")
