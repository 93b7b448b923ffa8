"""The message and the exit status for whatever ended an entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hft.config.compose import compose
from hft.config.conflicts import refuse_sweep_keys
from hft.config.overrides import line_of, parse_overrides
from hft.spec import UserError
from hft.system.conf import CONF, yaml_message


def explain(error: BaseException, entry: str, read: Callable[..., Any]) -> int:
    """Prints the message of what a user can mend, and returns the exit status: 2, or the number
    that belongs to a signal. Raises any other error.

    What Hydra refused on the command line joins the full report: the same overrides are composed
    again with `++` and given to `read(composed, choices=..., overrides=...)`, which raises a
    UserError for what is wrong with them.
    """
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("interrupted; hft runs shows how to go on\n")
        return 130
    if _is_hydras(error):
        error = _mended(entry, sys.argv[1:], read) or UserError(str(error))
    if not isinstance(error, UserError):
        error = _of_yaml(error)
    lines = str(error).strip().splitlines()
    sys.stderr.write("error: " + "\n       ".join(lines) + "\n")
    # A signal that ended a training, its state saved, has a status of its own.
    return getattr(error, "exit_status", 2)


def _of_yaml(error: BaseException) -> UserError:
    """What is wrong with a file of conf/ that Hydra could not read; raises any other error."""
    import yaml

    if not isinstance(error, yaml.MarkedYAMLError):
        raise error
    mark = error.problem_mark
    return UserError(yaml_message(error, mark.name if mark else "a file of conf/"))


def _mended(entry: str, arguments: list[str], read: Callable[..., Any]) -> UserError | None:
    """Every mistake of the command line, with the keys that Hydra refused forced in; None where
    that does not help.
    """
    forced = []
    try:
        for override in parse_overrides([a for a in arguments if not a.startswith("-")]):
            line = line_of(override)
            # One value stands for all: what is wrong with the path is wrong with each of them.
            if override.is_sweep_override():
                first = next(iter(override.sweep_string_iterator()))
                line = f"{override.get_key_element()}={first}"
            # `++` makes Hydra accept a key that it does not know, so that our parse can name it,
            # with a suggestion, among the other mistakes. A choice of a group cannot be forced.
            is_group = (CONF / override.key_or_group).is_dir()
            forced.append(line if is_group or line[0] in "+~" else f"++{line}")
        if not {"-m", "--multirun"} & set(arguments):
            refuse_sweep_keys(forced)
        composed = compose(forced, entry=entry, full_tree=True)
        read(composed, choices=composed.hydra.runtime.choices, overrides=forced)
    except UserError as error:
        return error
    # Hydra refuses even so: its first message is the one to print.
    except Exception as error:
        if not _is_hydras(error):
            raise
    return None


def _is_hydras(error: BaseException) -> bool:
    """Whether Hydra refused the command line: by its own error, or (`data=null`) by a bare
    ValueError from inside.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # The innermost frame tells: a ValueError of ours that only passes through Hydra is raised.
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    inside = place is not None and place.tb_frame.f_globals["__name__"].startswith("hydra.")
    return isinstance(error, HydraException | OmegaConfBaseException) or (
        type(error) is ValueError and inside
    )
