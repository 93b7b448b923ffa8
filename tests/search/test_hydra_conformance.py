"""Hydra's own conformance suite, run through our sweeper on Hydra's example apps (which have no
`sweep` group).
"""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import LauncherTestSuite
from hydra.version import VersionBase

from hydra_plugins.hft_sweep.sweeper import HftSweeper


@pytest.fixture(autouse=True)
def as_in_an_app_without_version_base():
    """As the suite's apps are; ours set 1.3 for the whole process."""
    state = Singleton.get_state()
    Singleton._instances.pop(VersionBase, None)
    yield
    Singleton.set_state(state)


def test_hydra_discovers_the_sweeper():
    assert HftSweeper.__name__ in [
        plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)
    ]


@pytest.mark.filterwarnings(
    "ignore:.*Future Hydra versions will no longer change working directory:UserWarning"
)
@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", ["hydra/sweeper=hft"])])
class TestConformance(LauncherTestSuite):
    """Jobs one after the other with Hydra's folders, numbers, overrides, resolvers and refusals."""
