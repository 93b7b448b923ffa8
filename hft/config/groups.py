"""The groups of conf/: which there are, what their files say, and what sets them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hft.spec import UserError
from hft.system.conf import read_yaml

SETS = ("features", "transforms", "fees")  # groups of which several files can be chosen together
OVERLAYS = ("experiment", "debug")  # groups whose files set paths anywhere
SWEEP_GROUPS = ("sweep", "launcher")  # what only a sweep reads, the same in all of its trials
RUN_KEYS = ("resume", "reproduce")  # what names a run whose config is taken
NOT_CONFIG = ("hydra", *SWEEP_GROUPS, *RUN_KEYS)  # composed, and no part of a run's config


def read_groups(conf: Path) -> dict[str, dict[str, Any]]:
    """Every group of the folder: option -> its YAML, merged over the options that it includes.

    A file that cannot be read has no fields here: Hydra tells whoever chooses it, and somebody
    else may be editing it.
    """
    groups = {
        folder.name: sorted(folder.glob("*.yaml"))
        for folder in sorted(conf.iterdir())
        if folder.is_dir()
    }
    return {
        name: {path.stem: _merged(path) for path in paths}
        for name, paths in groups.items()
        if paths
    }


def included(body: dict[str, Any]) -> list[str]:
    """Takes the `defaults` list out of a YAML's body; the names in it of files of its own group."""
    listed = body.pop("defaults", None) or []
    return [item for item in listed if isinstance(item, str) and item != "_self_"]


def _merged(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path in above:
        return {}
    try:
        body = read_yaml(path)
    except UserError:
        return {}
    merged: dict[str, Any] = {}
    for name in included(body):
        merged |= _merged(path.with_name(f"{name}.yaml"), (*above, path))
    return merged | body
