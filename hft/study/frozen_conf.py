"""The copy of conf/ that a study keeps, so that a YAML edited meanwhile changes nothing."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from hft.system.files import writable


def conf_hash(folder: Path) -> str:
    """sha256 over the YAML files below `folder` that `freeze_conf` copies, names and bytes."""
    digest = hashlib.sha256()
    for name in _yaml_files(folder):
        content = (folder / name).read_bytes()
        # Name and length stand before the content. Otherwise two folders whose files are cut at
        # other places could share a hash.
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def freeze_conf(source: Path, folder: Path) -> Path:
    """Copies the regular YAML files of `source` to `folder`, in one step; what is there already is
    left as it is.
    """
    with writable(folder):
        if folder.exists():
            return folder
        partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        # A call that was killed leaves its part behind.
        for left in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        for name in _yaml_files(source):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, partial / name)
        partial.rename(folder)
    return folder


def _yaml_files(folder: Path) -> list[Path]:
    """Relative paths, sorted; links to files and to folders are left out."""
    found = [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.endswith(".yaml")
    ]
    # A link could bring a file from outside into the study, and what it leads to may change while
    # trials run.
    return sorted(
        path.relative_to(folder) for path in found if path.is_file() and not path.is_symlink()
    )
