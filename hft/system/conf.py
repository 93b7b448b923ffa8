"""conf/: where the shipped YAML lies, and the one way in which a file of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hft.spec import PACKAGE, UserError

# A wheel carries conf/ inside the package; in a checkout it stands beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


class ConfError(UserError):
    """A YAML file that cannot be read, or holds no mapping."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, {} where the file is empty. Raises ConfError for any other."""
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(f"{path}: cannot be read ({error}); mend the file") from None
    except yaml.YAMLError as error:
        raise ConfError(yaml_message(error, path)) from None
    if body is not None and not isinstance(body, dict):
        raise ConfError(f"{path}: must hold a mapping, got {type(body).__name__}; mend the file")
    return body or {}


def yaml_message(error: Exception, path: Path | str) -> str:
    """What is wrong with a file that is no YAML, and the line where it is."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
    said = problem or " ".join(str(error).split())
    return f"{where}: not YAML, {said}; mend the file"
