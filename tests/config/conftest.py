import shutil

import pytest

from hft.system.conf import CONF


@pytest.fixture
def conf(tmp_path):
    """A copy of conf/ to write overlays into."""
    return shutil.copytree(CONF, tmp_path / "conf")
