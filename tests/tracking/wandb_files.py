"""Reads W&B's offline files back, all files of a run id merged in the order in which they were
begun.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OfflineRun:
    """What the files of one run folder hold. Curves are (epoch, value) in the order given; media
    are file contents.
    """

    ids: list[str] = field(default_factory=list)  # one per file
    project: str = ""
    name: str = ""  # as W&B displays it
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    axis: dict[str, str] = field(default_factory=dict)  # metric pattern -> its step metric
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)  # {"columns", "data"}
    images: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    staged: list[Path] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # {"type", "metadata", "files": name -> path}
    exit_codes: list[int] = field(default_factory=list)


def read_offline(folder: Path) -> OfflineRun:
    """The W&B run below the run folder `folder`."""
    run = OfflineRun()
    for path in sorted((folder / "wandb").glob("*run-*/run-*.wandb")):
        for record in _records(path):
            _add(run, record, path.parent / "files")
    return run


def _records(path: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def _add(run: OfflineRun, record: dict[str, Any], files: Path) -> None:
    kind, body = record["type"], record.get(record["type"], {})
    if kind == "run":
        run.ids.append(body["run_id"])
        run.project = body["project"]
        run.name = body.get("display_name", run.name)
        run.group = body.get("run_group", run.group)
        run.job_type = body.get("job_type", run.job_type)
        run.tags = body.get("tags", run.tags)
        run.config |= {k: v for k, v in body["config"]["update"].items() if not k.startswith("_")}
    elif kind == "metric" and "step_metric" in body:
        run.axis[body.get("name") or body["glob_name"]] = body["step_metric"]
    elif kind == "summary":
        run.summary |= {k: v for k, v in body.get("update", {}).items() if not k.startswith("_")}
    elif kind == "history":
        run.steps.append(body["step"]["num"])
        _add_row(run, body["item"], files)
    elif kind == "artifact":
        files = {entry["path"]: Path(entry["local_path"]) for entry in body["manifest"]["contents"]}
        run.staged += files.values()
        metadata = json.loads(body.get("metadata", "{}"))
        run.artifacts[body["name"]] = {"type": body["type"], "metadata": metadata, "files": files}
    elif kind == "exit":
        run.exit_codes.append(body.get("exit_code", 0))


def _add_row(run: OfflineRun, item: dict[str, Any], files: Path) -> None:
    for name, value in item.items():
        media, _, what = name.rpartition(".")
        if what == "_type" and value == "image-file":
            run.images[media] = (files / item[f"{media}.path"]).read_bytes()
        elif what == "_type" and value == "table-file":
            run.tables[media] = json.loads((files / item[f"{media}.path"]).read_text())
        elif what == "_type" and value == "html-file":
            run.pages[media] = (files / item[f"{media}.path"]).read_text()
        elif f"{media}._type" in item:
            pass  # what else W&B notes of an image or a table: width, rows
        elif (
            not name.startswith("_")
            and name != "epoch"
            and "epoch" in item
            and isinstance(value, int | float)
        ):
            run.curves.setdefault(name, []).append((item["epoch"], value))
