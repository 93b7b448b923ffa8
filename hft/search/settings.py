"""What only a sweep reads of a composed config: the groups `sweep` and `launcher`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from hft.config.overrides import of_groups
from hft.runs.jobs import read_train_job
from hft.spec import Kind, Room, Spec, SpecError, UserError, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hft.search.launcher import LauncherSpec
    from hft.study.sweep import SweepSpec
else:
    LauncherSpec = SweepSpec = Kind  # their rooms are heavy; `parse` imports the chosen kind


class SweepConfig(Spec):
    """The settings of search and engine."""

    sweep: Annotated[SweepSpec, Room("hft.study.sweep")]
    launcher: Annotated[LauncherSpec, Room("hft.search.launcher")]


def read_sweep(composed: DictConfig) -> SweepConfig:
    """Raises SpecError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = {
            name: OmegaConf.to_container(composed[name], resolve=True)
            for name in SweepConfig.model_fields
        }
    except OmegaConfBaseException as error:
        raise SpecError(
            f"{error.full_key or 'sweep'}: an interpolation does not resolve: {error.msg}"
        ) from None
    return parse(SweepConfig, plain)


def read_command(composed: DictConfig, *, choices: dict[str, Any], overrides: list[str]) -> None:
    """Raises UserError for a `train` command line, one run or a sweep, with every mistake."""
    errors = []
    try:
        # To parse the shipped sweep imports Optuna, which a single run has no use for.
        if of_groups(overrides, tuple(SweepConfig.model_fields)):
            read_sweep(composed)
    except SpecError as error:
        errors.append(str(error))
    try:
        read_train_job(composed, choices=choices, overrides=overrides)
    except UserError as error:
        errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
