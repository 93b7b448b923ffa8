"""`hft schema`: JSON Schemas of every config group, so that editors complete and underline the
YAML.
"""

from __future__ import annotations

import argparse
import functools
import operator
import sys
from pathlib import Path
from typing import Any, get_origin

import pydantic

from hft.config.configs import BacktestConfig, TrainConfig
from hft.search.settings import SweepConfig
from hft.spec import PACKAGE, Spec, UserError, room_of
from hft.system.commands import typed
from hft.system.conf import CONF
from hft.system.files import write_json
from hft.trading.fees import FeeSchedule

ENTRIES: dict[str, type[Spec]] = {"train": TrainConfig, "backtest": BacktestConfig}


class SchemaError(UserError):
    """A folder into which no schema is written."""


def main(arguments: list[str]) -> int:
    """The exit status. Raises SchemaError where the folder belongs to an installed package."""
    parser = argparse.ArgumentParser(
        prog="hft schema",
        description="Writes one JSON Schema per config group and entry point. A YAML names its own "
        "on its first line: # yaml-language-server: $schema=../schema/<group>.json",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=CONF / "schema", help="default: conf/schema"
    )
    folder = parser.parse_args(arguments).folder
    _refuse_package(folder)
    written = write_schemas(folder)
    sys.stdout.write(f"{len(written)} schemas in {folder}\n")
    return 0


def _refuse_package(folder: Path) -> None:
    # An installed package carries conf/ inside (hft/system/conf.py), and is no place for a user's
    # files.
    if folder.resolve().is_relative_to(PACKAGE.resolve()):
        remedy = typed("schema", "conf/schema")
        raise SchemaError(
            f"folder: must lie outside of the installed package {PACKAGE}, got {folder}; give the "
            f"folder of your own YAML: {remedy}"
        )


def write_schemas(folder: Path) -> list[Path]:
    """The files written: `<group>.json` for every group, `train.json` and `backtest.json`.

    Raises FileError where the folder cannot be written.
    """
    schemas = {entry: cls.model_json_schema() for entry, cls in ENTRIES.items()}
    # Fee schedules are no kinds, so that the loop below finds no room for them.
    schemas["fees"] = _of_set(FeeSchedule)
    # `sweep` and `launcher` are no part of a run's config, but their YAML is edited too.
    configs: list[type[Spec]] = [*ENTRIES.values(), SweepConfig]
    for cls in configs:
        for name, field in cls.model_fields.items():
            if room := room_of(field):
                union = functools.reduce(operator.or_, room.specs().values())
                is_set = get_origin(field.annotation) is dict
                schemas[name] = _of_set(union) if is_set else _schema(union)
    written = [folder / f"{name}.json" for name in schemas]
    remedy = f"choose another folder: {typed('schema', '<folder>')}"
    for path, schema in zip(written, schemas.values(), strict=True):
        write_json(path, _relax(schema), indent=1, remedy=remedy)
    return written


def _of_set(entry: Any) -> dict[str, Any]:
    """The schema of a mapping of names to entries, which may carry Hydra's `defaults:` list."""
    return _schema(dict[str, entry | list[Any]])


def _schema(annotation: Any) -> dict[str, Any]:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
    return adapter.json_schema()


def _relax(node: Any) -> Any:
    """A number may be an interpolation, which is text, and an overlay may leave fields out."""
    if isinstance(node, list):
        return [_relax(element) for element in node]
    if not isinstance(node, dict):
        return node
    node = {key: _relax(value) for key, value in node.items() if key != "required"}
    if node.get("type") in ("number", "integer", "boolean"):
        return {"anyOf": [node, {"type": "string", "pattern": r"^\$\{.*\}$"}]}
    if "properties" in node:
        # Hydra takes this list away before a spec sees it. The spec's schema allows no other field,
        # and an editor would underline it.
        node["properties"]["defaults"] = {"type": "array"}
    return node
