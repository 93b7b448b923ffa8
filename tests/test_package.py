"""What pip installs: the wheel's files and metadata, and a lock that fits the ranges."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hft

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RANGES = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["dev"],
    *PROJECT["build-system"]["requires"],
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = ["wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *build, str(ROOT)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"hft-{hft.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        yield archive


def tracked(folder, pattern):
    """Files below a folder of the checkout that git would keep."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = set(listed.stdout.splitlines())
    return {n for n in names if re.search(pattern, n) and (ROOT / n).is_file()}


def test_the_wheel_has_the_code_and_the_yaml_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    code = tracked("hft", r"\.pyi?$|py\.typed$") | tracked("hydra_plugins", r"\.py$")
    assert names == code | {f"hft/{name}" for name in tracked("conf", r"\.yaml$")}


def test_the_wheel_brings_the_command(wheel):
    (entries,) = (n for n in wheel.namelist() if n.endswith("/entry_points.txt"))
    assert wheel.read(entries).decode().split() == [
        "[console_scripts]", "hft", "=", "hft.__main__:main",
    ]  # fmt: skip


def pins():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("text", RANGES)
def test_the_lock_pins_a_version_in_each_range(text):
    requirement = Requirement(text)
    pinned = Version(pins()[canonicalize_name(requirement.name)])
    assert requirement.specifier.contains(pinned)
    # The oldest version that a range lets in is one that was tried.
    assert any(s.operator in (">=", "~=") for s in requirement.specifier)


def test_the_lock_fits_a_cpu_and_a_gpu_machine():
    lock = pins()
    assert not [version for version in lock.values() if "+" in version]
    assert not [name for name in lock if re.match("nvidia|cuda|triton", name)]


def test_every_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in RANGES:
        (line,) = (x for x in text.splitlines() if f'"{requirement}"' in x)
        assert re.search(r"# \w+", line), line
