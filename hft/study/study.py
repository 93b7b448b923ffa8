"""One study on disk and in its storage: what its trials share, what became of them, and where they
lie.

In: the folder `<sweeps>/<study>/`, the sweep's spec, the space, the base config and the conf/ to
freeze. Out: a Study. Its identity (version, code, conf, base config, space, method) is in
`study.json` and in the storage, so that it also binds a machine that shares only the storage.
hft/study/claims.py decides who works on which trial.

`study.json` may come from a stranger: it is parsed strictly, and names kinds and numbers, no code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hft.space import Space
from hft.study.about import (
    ANOTHER,
    as_stored,
    check_name,
    parse_about,
    read_about,
    refuse_other,
    refuse_unknown,
    remember_storage,
)
from hft.study.about import StudyError as StudyError
from hft.study.frozen_conf import conf_hash as conf_hash
from hft.study.frozen_conf import freeze_conf as freeze_conf
from hft.study.storage import Address, Locks, read_address
from hft.system.files import write_json
from hft.system.provenance import code_hash
from hft.system.version import VERSION

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hft.study.sweep import SweepSpec

IDENTITY = "hft"  # the attribute of Optuna's study that holds `about`


@dataclass(frozen=True)
class Counts:
    """Trials by what became of them; `points` counts all that are no retry, in any state."""

    complete: int
    pruned: int
    failed: int  # for good: no other trial repeats them
    retried: int
    running: int
    waiting: int
    points: int


@dataclass(eq=False)
class Study:
    """`sweep` is that of the present call: its total, its time and its retries may differ from the
    first call's.
    """

    name: str
    folder: Path
    address: Address
    about: dict[str, Any]
    sweep: SweepSpec
    space: Space

    @property
    def optuna(self) -> optuna.Study:
        """Optuna's study. Nobody uses its sampler and pruner: claims and trials have their own."""
        # One per process, because a fork must not use its parent's connections.
        if getattr(self, "_of", None) != os.getpid():
            self._study, self._of = _load(self.address, self.name), os.getpid()
        return self._study

    @cached_property
    def locks(self) -> Locks:
        return self.address.locks()

    def trial_folder(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def trials(self) -> list[FrozenTrial]:
        """All trials by number; callers must not change them."""
        # A copy of every trial would make each claim dearer than the one before.
        return self.optuna.get_trials(deepcopy=False)

    def counts(self) -> Counts:
        trials = self.trials()
        repeated = {t.user_attrs.get("retry_of") for t in trials}
        by = {name: [t.number for t in trials if t.state.name == name] for name in _STATES}
        retried = sum(number in repeated for number in by["FAIL"])
        complete, pruned, failed, running, waiting = (len(by[name]) for name in _STATES)
        return Counts(
            complete, pruned, failed - retried, retried, running, waiting, n_points(trials)
        )

    def best(self) -> list[FrozenTrial]:
        """The best complete trial within the constraints, [] while there is none; of several
        objectives their front.
        """
        if len(self.optuna.directions) > 1:
            return self.optuna.best_trials
        complete = [t for t in self.trials() if t.state.name == "COMPLETE" and _is_feasible(t)]
        sign = 1 if self.optuna.direction.name == "MINIMIZE" else -1
        return sorted(complete, key=lambda t: sign * t.values[0])[:1]

    def spent_s(self) -> float:
        """Time that all drivers have swept so far, in seconds."""
        return sum(v for k, v in self.optuna.user_attrs.items() if k.startswith("spent:"))

    def note_spent(self, driver: str, seconds: float) -> None:
        """Notes what `driver` has spent since it began."""
        # One attribute per driver: drivers that add to one number would overwrite each other's
        # time.
        self.optuna.set_user_attr(f"spent:{driver}", seconds)


_STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")


def n_points(trials: Sequence[FrozenTrial]) -> int:
    """How many trials count towards n_trials: all that are no retry."""
    return sum(t.user_attrs.get("retry_of") is None for t in trials)


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def create_study(
    folder: Path,
    *,
    sweep: SweepSpec,
    space: Space,
    base: dict[str, Any],
    conf: Path,
    overrides: Sequence[str] = (),
) -> Study:
    """Begins the study in `folder`, joins it where only its storage knows it, or goes on with it.

    Raises StudyError, with the differences, where the study of that name is another one. `base` is
    what all trials share, `overrides` are the command-line words for it; `conf` is frozen where the
    study is new to this folder.
    """
    folder = folder.absolute()
    check_name(folder)
    address = read_address(sweep.storage, folder)
    asked = {
        "name": folder.name,
        "version": VERSION,
        "storage": address.text,
        "code": code_hash(),
        "base": base,
        "space": space.plain(),
    }
    asked = as_stored(asked | {"sweep": sweep.plain(), "overrides": list(overrides)})
    # Two drivers may begin the study of one name at the same moment.
    with address.locks().study():
        known = (folder / "study.json").exists()
        # Where the study has its copy of conf/ already, an edit of the original changes nothing.
        asked["conf"] = conf_hash(folder / "conf" if known else conf)
        stored = _stored(address, folder.name, begun=read_about(folder)["storage"] if known else "")
        if stored is not None:
            refuse_other(stored, asked, folder)
        else:
            _begin(address, asked, sweep.directions())
        about = (stored or asked) | {"storage": address.text}
        if not known:  # study.json comes last: the next call does again what is cut short before it
            freeze_conf(conf, folder / "conf")
            write_json(folder / "study.json", about, indent=1)
        remember_storage(folder, address.text)
    return Study(folder.name, folder, address, about, sweep, space)


def open_study(folder: Path, *, storage: str = "") -> Study:
    """The study as it was begun, to look at it. `storage` is another address of it; with one, the
    folder may be missing. Without one, an address outside of the folder is followed where a sweep
    from here has used it.
    """
    folder = folder.absolute()
    check_name(folder)
    known = (folder / "study.json").exists() or not storage
    about = read_about(folder) if known else None
    if about and not storage:
        refuse_unknown(folder, about["storage"])
    address = read_address(storage or (about["storage"] if about else ""), folder)
    begun = about["storage"] if about else address.text
    stored = _stored(address, folder.name, begun=begun)
    assert stored is not None, "a study that was begun is there, or StudyError says so"
    # An edited study.json must not describe the trials of another study.
    if about:
        refuse_other(stored, about, folder)
    sweep = parse_about(stored, f"study {folder.name}").sweep
    return Study(folder.name, folder, address, stored, sweep, Space.from_plain(stored["space"]))


def _begin(
    address: Address, about: dict[str, Any], directions: list[Literal["minimize", "maximize"]]
) -> None:
    import optuna

    study = optuna.create_study(
        study_name=about["name"],
        storage=address.open(),
        directions=directions,
        # An earlier driver may have been killed between this call and the attribute below.
        load_if_exists=True,
        # Optuna's defaults are TPE and a median pruner, which nobody here asks for anything.
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.NopPruner(),
    )
    if [d.name.lower() for d in study.directions] != directions:
        raise StudyError(
            f"study {study.study_name} in storage {address.text} has other objectives; "
            "choose another name"
        )
    # Set last: a study without it is a stranger's, or its driver was killed (`_stored`).
    study.set_user_attr(IDENTITY, about)


def _load(address: Address, name: str) -> optuna.Study:
    import optuna

    return optuna.load_study(
        study_name=name,
        storage=address.open(),
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.NopPruner(),
    )


def _stored(address: Address, name: str, *, begun: str) -> dict[str, Any] | None:
    """What the storage knows of the study. Without one there it is None, or StudyError where the
    study was `begun` in some storage.
    """
    try:
        study = _load(address, name) if address.exists() else None
    # Optuna's answer to a name that the storage does not have.
    except KeyError:
        study = None
    if study is None:
        if begun:
            raise _gone(address, name, begun)
        return None
    about = study.user_attrs.get(IDENTITY)
    if about is None and not begun and not study.get_trials(deepcopy=False):
        return None  # its first driver was killed; under the lock nobody else begins it now
    if about is None:
        raise StudyError(
            f"study {name} in storage {address.text} is not one of ours; choose another name"
        )
    parse_about(about, f"study {name} in storage {address.text}")
    return about


def _gone(address: Address, name: str, begun: str) -> StudyError:
    where = f"it was begun in {begun}: go on there, sweep.storage={begun}"
    if begun == address.text:
        where = "there is nothing of that name; restore it"
    return StudyError(f"study {name} is not in storage {address.text}: {where}, {ANOTHER}")
