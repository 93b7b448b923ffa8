"""Hydra's side of an entry point: what the command line composed in, one typed config or one list of mistakes out.

Nothing here knows a field: the config class to parse into is an argument. Composing costs 0.1 s and imports no room.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hft.spec import Spec, SpecError, UserError, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).parents[1] / "conf"
C = TypeVar("C", bound=Spec)


def compose(overrides: list[str], *, entry: str = "train", full_tree: bool = False) -> DictConfig:
    """What `python <entry>.py <overrides>` composes, for tests, checks and notebooks."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(entry, overrides=overrides, return_hydra_config=full_tree)


def parse_job(composed: DictConfig, cls: type[C]) -> C:
    """The typed config of the running Hydra job; SpecError names every mistake."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    if str(hydra.mode).endswith("RUN") and not str(hydra.mode).endswith("MULTIRUN"):
        refuse_sweep_keys(list(hydra.overrides.task))
    return from_hydra(composed, cls, choices=hydra.runtime.choices, overrides=list(hydra.overrides.task))


def from_hydra(composed: DictConfig, cls: type[C], *, choices: dict[str, Any], overrides: list[str]) -> C:
    """The typed config of a composed one. `choices` are Hydra's group choices, `overrides` the command line: they tell
    who set what where an experiment fills in a kind that the command line then replaced."""
    errors = overlay_conflicts(choices, overrides)
    try:
        config = parse(cls, to_plain(composed))
    except SpecError as error:
        errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
    return config


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Plain data with interpolations resolved, without what only the sweep driver reads."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.set_struct(composed, False)
    plain = {k: v for k, v in composed.items_ex(resolve=False) if k not in ("hydra", "sweep", "launcher")}
    try:
        return OmegaConf.to_container(OmegaConf.create(plain, flags={"allow_objects": False}), resolve=True)
    except OmegaConfBaseException as error:
        raise SpecError(f"{error.full_key or 'config'}: an interpolation does not resolve: {error.msg}") from None


def overlay_conflicts(choices: dict[str, Any], overrides: list[str]) -> list[str]:
    """One line per group whose kind an experiment chose and filled in, and the command line then replaced.

    Hydra merges the experiment's numbers into the other kind without a word: 10 trades would become 10 dollars.
    """
    import yaml

    lines = []
    for overlay in ("experiment", "debug"):
        name = choices.get(overlay)
        path = CONF / overlay / f"{name}.yaml"
        if not name or not path.is_file():
            continue
        body = yaml.safe_load(path.read_text()) or {}
        chosen = {}
        for item in body.get("defaults", []):
            if isinstance(item, dict):
                chosen |= {k.removeprefix("override ").lstrip("/"): v for k, v in item.items()}
        for group, kind in chosen.items():
            if group not in choices or not isinstance(kind, str) or choices[group] == kind:
                continue
            given = {o.lstrip("+~").partition("=")[0] for o in overrides}
            left = [f"{group}.{k}={v}" for k, v in (body.get(group) or {}).items() if f"{group}.{k}" not in given]
            if left:
                lines.append(
                    f"{group}: {overlay}={name} chose {kind!r} and sets {', '.join(left)}; the command line chose "
                    f"{choices[group]!r}, for which these were not meant; give them on the command line too"
                )
    return lines


def refuse_sweep_keys(overrides: list[str]) -> None:
    """Raises SpecError for `sweep...` and `launcher...` on a single run, where they would be ignored."""
    bare = [o.lstrip("+~") for o in overrides]
    ignored = [o for o in bare if o.split("=")[0].split(".")[0] in ("sweep", "launcher")]
    if ignored:
        raise SpecError(f"{', '.join(ignored)}: only a sweep reads this; add -m or take it out")


def explain(error: BaseException, cls: type[Spec], entry: str) -> int:
    """The exit status for what ended an entry point, its message printed where the user can mend it, else raised.

    What Hydra refused on the command line joins the full report: the same overrides are composed again with `++`.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 130
    if isinstance(error, HydraException | OmegaConfBaseException):
        error = _mended(cls, entry, sys.argv[1:]) or UserError(str(error))
    if not isinstance(error, UserError):
        raise error
    lines = str(error).strip().splitlines()
    sys.stderr.write("error: " + "\n       ".join(lines) + "\n")
    return 2


def _mended(cls: type[Spec], entry: str, arguments: list[str]) -> SpecError | None:
    """Every mistake of the command line, once the keys that Hydra refuses are forced in; None if that does not help."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    forced = []
    try:
        for override in OverridesParser.create().parse_overrides([a for a in arguments if not a.startswith("-")]):
            line = override.input_line or ""
            if override.is_sweep_override():
                line = f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
            is_group = (CONF / override.key_or_group).is_dir()
            forced.append(line if is_group or line[0] in "+~" else f"++{line}")
        if not {"-m", "--multirun"} & set(arguments):
            refuse_sweep_keys(forced)
        parse(cls, to_plain(compose(forced, entry=entry)))
    except SpecError as error:
        return error
    except (HydraException, OmegaConfBaseException):
        return None
    return None
