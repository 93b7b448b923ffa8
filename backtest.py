"""python backtest.py ckpt=<run> [group=kind] [group.field=value]: the same as `hft backtest`."""

import sys

from hft.cli.backtest import main  # which is a @hydra.main: Hydra's bash completion greps for it

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
