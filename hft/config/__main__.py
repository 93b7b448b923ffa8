"""Where `hft check` and `hft schema` stood in 0.1; goes with 0.3."""

import sys

from hft.system.commands import name_successor

if __name__ == "__main__":
    sys.exit(name_successor("hft.config", "check", "schema"))
