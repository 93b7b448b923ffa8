"""What the command line composed in, one typed config or one list of mistakes out.

The config class to parse into is an argument. Of its fields only `experiment` is known here: it
holds Hydra's choice, not a value of the YAML. Composing costs 0.1 s and imports no room.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin

from hft.config.conflicts import overlay_conflicts, set_conflicts
from hft.config.groups import NOT_CONFIG
from hft.config.hydra_internals import apply_overrides
from hft.config.overrides import line_of, parse_overrides
from hft.spec import Spec, SpecError, parse
from hft.system.conf import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

C = TypeVar("C", bound=Spec)


def compose(
    overrides: list[str], *, entry: str = "train", full_tree: bool = False, conf: Path = CONF
) -> DictConfig:
    """What `python <entry>.py <overrides>` composes from the YAML in `conf`, before any check.

    `full_tree` keeps Hydra's own node, which holds the group choices.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    # A sweep composes its trials from another folder while Hydra's own instance is alive.
    running = GlobalHydra.instance()
    outer, running.hydra = running.hydra, None
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return hydra_compose(entry, overrides=overrides, return_hydra_config=full_tree)
    finally:
        GlobalHydra.instance().hydra = outer


def make_config(cls: type[C], overrides: list[str], *, conf: Path = CONF) -> C:
    """The typed config of `python train.py <overrides>`: for tests, checks and notebooks. Raises
    SpecError with every mistake, and Hydra's own errors.
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
    """The typed config of a composed one. Raises SpecError with every mistake.

    `choices` are Hydra's group choices, `overrides` the command line: they tell who set what where
    the command line replaced a kind that an experiment had filled in.
    """
    # Collected, so that conflicts and the mistakes of the parse come in one report.
    errors = overlay_conflicts(choices, overrides, conf=conf)
    errors += set_conflicts(choices, overrides, conf=conf)
    try:
        # An empty choice of a set (`transforms=[]`) leaves no key behind.
        empty: dict[str, Any] = {
            name: {}
            for name, field in cls.model_fields.items()
            if get_origin(field.annotation) is dict
        }
        chosen = {"experiment": choices.get("experiment") or ""}
        known = {name: value for name, value in chosen.items() if name in cls.model_fields}
        config = parse(cls, empty | to_plain(composed) | known)
    except SpecError as error:
        errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
    return config


class Composer(Generic[C]):
    """`make_config` for many command lines that begin alike, such as a sweep's points: 25 ms each,
    not 140.

    It keeps what Hydra composed for each choice of groups, and applies the other overrides to a
    copy, which is what Hydra does last.
    """

    def __init__(self, cls: type[C], fixed: list[str], *, conf: Path = CONF) -> None:
        self.cls, self.fixed, self.conf = cls, fixed, conf
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}

    def __call__(self, overrides: list[str]) -> C:
        parsed = parse_overrides(overrides)
        # A folder of conf/ is a group: choosing in it decides which files are composed.
        chosen = [o for o in parsed if (self.conf / o.key_or_group).is_dir()]
        kept, choices = self._compose(tuple(line_of(o) for o in chosen))
        # Overrides are set in place, and what is kept serves the next point too.
        composed = copy.deepcopy(kept)
        apply_overrides([o for o in parsed if o not in chosen], composed)
        return from_hydra(
            composed, self.cls, choices=choices, overrides=[*self.fixed, *overrides], conf=self.conf
        )

    def _compose(self, groups: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
        from omegaconf import open_dict

        if groups not in self._composed:
            composed = compose([*self.fixed, *groups], full_tree=True, conf=self.conf)
            choices = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]  # the largest part, and copied at every call
            self._composed[groups] = composed, choices
        return self._composed[groups]


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """The run's config as plain data, interpolations resolved. Raises SpecError where one does not
    resolve.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.set_struct(composed, False)
    kept = {k: v for k, v in composed.items_ex(resolve=False) if k not in NOT_CONFIG}
    bare = OmegaConf.create(kept, flags={"allow_objects": False})
    try:
        plain = OmegaConf.to_container(bare, resolve=True)
    except OmegaConfBaseException as error:
        raise SpecError(
            f"{error.full_key or 'config'}: an interpolation does not resolve: {error.msg}"
        ) from None
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}
