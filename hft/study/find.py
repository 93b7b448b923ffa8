"""The studies below one root: a name in, the study out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hft.spec import UserError, did_you_mean
from hft.system.commands import typed

if TYPE_CHECKING:
    from hft.study.study import Study


class StudiesError(UserError):
    """A command that names no study, or cannot be carried out."""


def find_study(sweeps: Path, name: str, storage: str = "") -> Study:
    """The study of that name, from its folder, or from `storage` alone where this machine has no
    folder of it.
    """
    names = names_of_studies(sweeps)
    if name in names or storage:
        from hft.study.study import open_study

        return open_study(sweeps / name, storage=storage)
    if not sweeps.is_dir():
        raise StudiesError(f"{sweeps}: no such folder, so no study {name!r}; {remedy()}")
    known = f"the studies in {sweeps}: {', '.join(names)}"
    if not names:
        known = f"there are no studies in {sweeps}; {remedy()}"
    raise StudiesError(f"no study {name!r}{did_you_mean(name, names)}; {known}")


def remedy() -> str:
    start = typed("train", "-m", "sweep=tpe")
    return f"start one: {start}, or say where they are: sweeps=<folder>"


def names_of_studies(sweeps: Path) -> list[str]:
    return sorted(path.parent.name for path in sweeps.glob("*/study.json"))
