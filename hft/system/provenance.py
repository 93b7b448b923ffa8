"""What ran: versions of the libraries that can change a result, and the state of the checkout."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import subprocess
from typing import Any

from hft.spec import PACKAGE, Spec, numbers_of
from hft.system.version import VERSION

LIBRARIES = (
    "torch",
    "pytorch-lightning",
    "polars",
    "numba",
    "numpy",
    "pydantic",
    "hydra-core",
    "lightgbm",
    "optuna",
)


def versions() -> dict[str, str]:
    """Versions of hft, of Python, and of the libraries that can change a result, which are not
    imported for it.
    """
    found = {"hft": VERSION, "python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def code_hash() -> str:
    """sha256 over every Python file of hft as it lies on the disk now, names and bytes.

    Hidden ones are an editor's; one that it is just replacing counts as gone.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if "/." in f"/{name}":
            continue
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            # With name and length, so that code moved from one file to the next is other code.
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def git_state() -> dict[str, Any]:
    """Commit of the checkout and whether files differ from it; both null outside a checkout or
    without git.
    """
    commit = _git("rev-parse", "--verify", "HEAD")
    changes = _git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    # No optional locks: looking must not disturb a git command that runs at the same time.
    command = ["git", "-C", str(PACKAGE.parent), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def differences(before: dict[str, Any], after: dict[str, Any], *, config: type[Spec]) -> list[str]:
    """A line per difference between two runs' accounts of themselves (`Run.read_about`): in the
    commit, the keys of bars, features and labels, the versions, and the config, which is of the
    class `config`. What the older run did not record cannot differ.
    """
    lines = []
    if before["git"].get("commit") != after["git"].get("commit"):
        lines.append(f"code: commit {before['git'].get('commit')} -> {after['git'].get('commit')}")
    lines += [
        f"code: {when} run had uncommitted changes"
        for when, about in (("the repeated", before), ("this", after))
        if about["git"].get("dirty")
    ]
    lines += [
        f"{name}: other data, code or libraries make them"
        for name, key in before["data_keys"].items()
        if key != after["data_keys"].get(name)
    ]
    # A library that the older run did not record says nothing of what it had.
    recorded = {
        name: version for name, version in after["versions"].items() if name in before["versions"]
    }
    lines += _changes("versions", before["versions"], recorded)
    # A field that the older run lacks was added since, and was filled in so that nothing changes.
    asked = flat(numbers_of(config, before["config"]))
    given = flat(numbers_of(config, after["config"]))
    return lines + _changes("config", asked, {k: v for k, v in given.items() if k in asked})


def _changes(part: str, a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    return [f"{part}: {name} {a.get(name)} -> {b.get(name)}" for name in names]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by dotted path; lists are leaves."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        k: v
        for name, item in value.items()
        for k, v in flat(item, f"{path}.{name}".lstrip(".")).items()
    }
