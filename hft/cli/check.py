"""`hft check`: does every shipped experiment parse?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hft.config.compose import make_config
from hft.config.configs import TrainConfig
from hft.config.groups import OVERLAYS
from hft.spec import UserError
from hft.system.conf import CONF, yaml_message


def main(arguments: list[str]) -> int:
    """The exit status: 0 when all parse, else 1."""
    parser = argparse.ArgumentParser(
        prog="hft check",
        description="Parses every experiment and debug overlay of conf/, and prints what is wrong.",
    )
    parser.parse_args(arguments)
    problems = check_experiments()
    sys.stdout.write("\n".join(problems or ["every shipped experiment parses"]) + "\n")
    return int(bool(problems))


def check_experiments(conf: Path = CONF) -> list[str]:
    """The problems of every experiment and debug overlay in `conf`, none when all parse."""
    problems = []
    for overlay in OVERLAYS:
        for path in sorted((conf / overlay).glob("*.yaml")):
            problems += _problems(overlay, path.stem, conf)
    return problems


def _problems(overlay: str, name: str, conf: Path) -> list[str]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = f"conf/{overlay}/{name}.yaml"
    try:
        make_config(TrainConfig, [f"{overlay}={name}"], conf=conf)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        # What a file leaves to the command line (`???`, a data path) is no fault of the file.
        lines = [line for line in str(error).splitlines() if "has no value yet" not in line]
        return [f"{file}: {line}" for line in lines]
    except YAMLError as error:
        return [yaml_message(error, file)]
    return []
