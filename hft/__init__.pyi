"""What hft/__init__.py imports when it is first used."""

from hft.runs.api import Run as Run
from hft.runs.api import backtest as backtest
from hft.runs.api import build_frames as build_frames
from hft.runs.api import load_market as load_market
from hft.runs.api import load_run as load_run
from hft.runs.api import make_config as make_config
from hft.runs.api import train as train

__version__: str
