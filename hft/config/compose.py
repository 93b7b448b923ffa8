"""Hydra's side of an entry point: what the command line composed in, one typed config or one list
of mistakes out.

Nothing here knows a field: the config class to parse into is an argument. Composing costs 0.1 s and
imports no room.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin

from hft.spec import PACKAGE, Spec, SpecError, UserError, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = PACKAGE.parent / "conf"
SETS = ("features", "transforms", "fees")  # groups of which several files can be chosen together
NOT_CONFIG = (
    "hydra",
    "sweep",
    "launcher",
    "resume",
    "reproduce",
)  # read by the driver and by hft.runs.jobs
C = TypeVar("C", bound=Spec)


def compose(
    overrides: list[str], *, entry: str = "train", full_tree: bool = False, conf: Path = CONF
) -> DictConfig:
    """What `python <entry>.py <overrides>` composes from the YAML in `conf`, before any check."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance()
    outer, running.hydra = (
        running.hydra,
        None,
    )  # of a sweep, which composes its trials from another folder
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return hydra_compose(entry, overrides=overrides, return_hydra_config=full_tree)
    finally:
        GlobalHydra.instance().hydra = outer


def make_config(cls: type[C], overrides: list[str], *, conf: Path = CONF) -> C:
    """The typed config of `python train.py <overrides>`: of a sweep's point, for tests, checks and
    notebooks.
    """
    composed = compose(overrides, full_tree=True, conf=conf)
    return from_hydra(
        composed, cls, choices=composed.hydra.runtime.choices, overrides=overrides, conf=conf
    )


def from_hydra(
    composed: DictConfig,
    cls: type[C],
    *,
    choices: dict[str, Any],
    overrides: list[str],
    conf: Path = CONF,
) -> C:
    """The typed config of a composed one. `choices` are Hydra's group choices, `overrides` the
    command line: they tell who set what where an experiment fills in a kind that the command line
    then replaced.
    """
    errors = overlay_conflicts(choices, overrides, conf=conf) + set_conflicts(
        choices, overrides, conf=conf
    )
    try:
        # An empty choice of a set (`transforms=[]`) leaves no key behind.
        empty = {
            name: {}
            for name, field in cls.model_fields.items()
            if get_origin(field.annotation) is dict
        }
        config = parse(cls, empty | to_plain(composed))
    except SpecError as error:
        errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
    return config


class Composer(Generic[C]):
    """`make_config` for many command lines that begin alike, such as a sweep's points: 25 ms each,
    not 140.

    What Hydra composes is kept by the groups that are chosen; the other overrides are applied to a
    copy, which is what Hydra does last.
    """

    def __init__(self, cls: type[C], fixed: list[str], *, conf: Path = CONF) -> None:
        self.cls, self.fixed, self.conf = cls, fixed, conf
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}

    def __call__(self, overrides: list[str]) -> C:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create().parse_overrides(overrides)
        chosen = [o for o in parsed if (self.conf / o.key_or_group).is_dir()]
        kept, choices = self._compose(tuple(o.input_line for o in chosen))
        composed = copy.deepcopy(kept)
        ConfigLoaderImpl._apply_overrides_to_config(
            [o for o in parsed if o not in chosen], composed
        )
        return from_hydra(
            composed, self.cls, choices=choices, overrides=[*self.fixed, *overrides], conf=self.conf
        )

    def _compose(self, groups: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
        from omegaconf import open_dict

        if groups not in self._composed:
            composed = compose([*self.fixed, *groups], full_tree=True, conf=self.conf)
            choices = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]  # the most of it
            self._composed[groups] = composed, choices
        return self._composed[groups]


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Plain data with interpolations resolved, without what only the sweep driver reads."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.set_struct(composed, False)
    plain = {k: v for k, v in composed.items_ex(resolve=False) if k not in NOT_CONFIG}
    try:
        return OmegaConf.to_container(
            OmegaConf.create(plain, flags={"allow_objects": False}), resolve=True
        )
    except OmegaConfBaseException as error:
        raise SpecError(
            f"{error.full_key or 'config'}: an interpolation does not resolve: {error.msg}"
        ) from None


def overlay_conflicts(
    choices: dict[str, Any], overrides: list[str], *, conf: Path = CONF
) -> list[str]:
    """One line per group whose kind an experiment chose and filled in, and the command line then
    replaced.

    Hydra merges the experiment's numbers into the other kind without a word: 10 trades would become
    10 dollars.
    """
    lines = []
    for overlay in ("experiment", "debug"):
        name = choices.get(overlay)
        body = _read_yaml(conf / overlay / f"{name}.yaml")
        chosen = {}
        for item in body.get("defaults", []):
            if isinstance(item, dict):
                chosen |= {k.removeprefix("override ").lstrip("/"): v for k, v in item.items()}
        for group, kind in chosen.items():
            if group not in choices or not isinstance(kind, str) or choices[group] == kind:
                continue
            given = {o.lstrip("+~").partition("=")[0] for o in overrides}
            left = [
                f"{group}.{k}={v}"
                for k, v in (body.get(group) or {}).items()
                if f"{group}.{k}" not in given
            ]
            if left:
                lines.append(
                    f"{group}: {overlay}={name} chose {kind!r} and sets {', '.join(left)}; the command line chose "
                    f"{choices[group]!r}, for which these were not meant; give each on the command line too, or take "
                    f"it out: ~{left[0].partition('=')[0]}"
                )
    return lines


def set_conflicts(choices: dict[str, Any], overrides: list[str], *, conf: Path = CONF) -> list[str]:
    """One line per name that two chosen sets define differently, with both files; Hydra keeps the
    later in silence.
    """
    lines = []
    for group in SETS:
        seen: dict[str, tuple[str, Any]] = {}
        for file, name, entry in _chosen_entries(group, choices, overrides, conf):
            first, defined = seen.setdefault(name, (file, entry))
            if defined != entry:
                lines.append(
                    f"{group}.{name}: defined differently in {first} and {file}; rename one, or leave one out"
                )
    return lines


def _chosen_entries(
    group: str, choices: dict[str, Any], overrides: list[str], conf: Path
) -> Iterator[tuple[str, str, Any]]:
    """(file, name, definition) of every entry of the chosen sets and of those that they include."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    chosen = choices.get(group) or []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.key_or_group == group and isinstance(override.value(), list):
            chosen = override.value()
    pending = [chosen] if isinstance(chosen, str) else [str(name) for name in reversed(chosen)]
    while pending:
        path = conf / group / f"{pending.pop()}.yaml"
        body = _read_yaml(path)
        pending += [
            item
            for item in reversed(body.pop("defaults", []))
            if isinstance(item, str) and item != "_self_"
        ]
        yield from ((f"conf/{group}/{path.name}", name, entry) for name, entry in body.items())


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def refuse_sweep_keys(overrides: list[str]) -> None:
    """Raises SpecError for `sweep...` and `launcher...` on a single run, where they would be
    ignored.
    """
    bare = [o.lstrip("+~") for o in overrides]
    ignored = [o for o in bare if o.split("=")[0].split(".")[0] in ("sweep", "launcher")]
    if ignored:
        raise SpecError(f"{', '.join(ignored)}: only a sweep reads this; add -m or take it out")


def explain(error: BaseException, entry: str, read: Callable[..., Any]) -> int:
    """The exit status for what ended an entry point, its message printed where the user can mend
    it, else raised.

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
    return getattr(
        error, "exit_status", 2
    )  # a signal's own, where one ended a training with its state saved


def _of_yaml(error: BaseException) -> UserError:
    """What is wrong with a file of conf/ that is no YAML; raises any other error."""
    import yaml

    if not isinstance(error, yaml.MarkedYAMLError):
        raise error
    return UserError(f"{str(error.problem_mark).strip()}: not YAML, {error.problem}; mend the file")


def _mended(entry: str, arguments: list[str], read: Callable[..., Any]) -> UserError | None:
    """Every mistake of the command line, once the keys that Hydra refuses are forced in; None if
    that does not help.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    forced = []
    try:
        for override in OverridesParser.create().parse_overrides(
            [a for a in arguments if not a.startswith("-")]
        ):
            line = override.input_line or ""
            if override.is_sweep_override():
                line = (
                    f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
                )
            is_group = (CONF / override.key_or_group).is_dir()
            forced.append(line if is_group or line[0] in "+~" else f"++{line}")
        if not {"-m", "--multirun"} & set(arguments):
            refuse_sweep_keys(forced)
        composed = compose(forced, entry=entry, full_tree=True)
        read(composed, choices=composed.hydra.runtime.choices, overrides=forced)
    except UserError as error:
        return error
    except Exception as error:
        if not _is_hydras(error):
            raise
    return None


def _is_hydras(error: BaseException) -> bool:
    """Whether Hydra refused the command line: by its own error, or (`data=null`) a bare ValueError
    from inside.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    inside = place is not None and place.tb_frame.f_globals["__name__"].startswith("hydra.")
    return isinstance(error, HydraException | OmegaConfBaseException) or (
        type(error) is ValueError and inside
    )
