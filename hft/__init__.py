"""Raw Bitcoin trades and quotes in, an honestly scored trading signal out."""

from importlib import import_module
from typing import Any

# The API for notebooks (docs/api.md). A name is imported when it is first used: `import hft` stays
# light, and nothing here is part of a cache key, which covers all that this file imports.
# hft/__init__.pyi says the same to type checkers and editors.
__all__ = [
    "Run",
    "backtest",
    "build_frames",
    "load_market",
    "load_run",
    "make_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("hft.system.version").VERSION
    if name in __all__:
        return getattr(import_module("hft.runs.api"), name)
    raise AttributeError(f"module 'hft' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
