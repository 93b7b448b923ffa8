"""python train.py [group=kind] [group.field=value] [-m group=a,b]: the same as `hft train`."""

import sys

from hft.cli.train import main  # which is a @hydra.main: Hydra's bash completion greps for the word

if __name__ == "__main__":  # a worker of a sweep imports this file and must not start a sweep
    sys.exit(main(sys.argv[1:]))
