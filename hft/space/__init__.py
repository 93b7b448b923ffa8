"""What a sweep varies: dimensions, the points they make, and the Hydra overrides that set a point.

In: the `space` of a sweep's YAML (dotted path -> list, range, {values, when}) and the sweeping
overrides of the command line. Out: a `Space`, whose points are plain {path: scalar} dicts, the same
in a grid, in an Optuna trial and in a table. `check_space` then proves that every value is valid in
at least one composed config.
"""

from hft.space.check import check_space
from hft.space.dimension import Dimension, Scalar, scalar, value_text
from hft.space.grammar import read_space
from hft.space.space import GRID_LIMIT, Space

__all__ = [
    "GRID_LIMIT",
    "Dimension",
    "Scalar",
    "Space",
    "check_space",
    "read_space",
    "scalar",
    "value_text",
]
