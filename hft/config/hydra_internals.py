"""Every private name of Hydra that we use, and nothing else: here alone a new Hydra can break it.

tests/config/test_hydra_internals.py has a test for each, which fails by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig


def apply_overrides(overrides: list[Override], composed: DictConfig) -> None:
    """Sets what the overrides say in a composed config, in place: what Hydra does last. None of
    them may choose a group.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    ConfigLoaderImpl._apply_overrides_to_config(overrides, composed)


def grid_points(overrides: list[Override]) -> list[list[str]]:
    """The override lines of every point of a plain grid, in the order of Hydra's own sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    # Without a largest size all points are in one batch.
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(point) for point in batch]


def parsed_value(override: Override) -> Any:
    """The value as Hydra's grammar parsed it, a Sweep too, for which `value()` raises."""
    return override._value


def plain_value(element: Any) -> Any:
    """An element of a parsed list without the grammar's quotes and casts."""
    from hydra.core.override_parser.types import Override

    return Override._convert_value(element)


def error_of(job: JobReturn) -> BaseException:
    """What ended a failed job; the public `return_value` raises it."""
    error = job._return_value
    assert isinstance(error, BaseException)
    return error
