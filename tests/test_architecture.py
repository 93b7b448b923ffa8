"""The shape of the house: imports point backwards, every kind has its YAML and test, start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hft.spec import Room

ROOT = Path(__file__).parents[1]
HFT = ROOT / "hft"
ORDER = [
    "spec", "schema", "fees", "provenance", "files", "processes", "cache", "data", "bars", "features", "labels",
    "splits", "transforms", "dataset", "stages", "model", "loss", "baseline", "optim", "trainer", "strategy",
    "execution", "statistics", "classification", "checkpoint", "learner", "training", "run", "runs", "tracker",
    "wandb_tracker", "workspace", "tracking", "report", "tables", "figures", "review", "compose", "config", "metrics",
    "jobs", "audit", "frames", "money", "watch", "fold", "openings", "pipeline", "sweep", "launcher", "space",
    "storage", "study", "claims", "trial", "study_frame", "study_tables", "study_figures", "study_report", "studies",
]  # fmt: skip
ROOMS = ["data", "bars", "labels", "splits", "model", "loss", "baseline", "strategy", "execution", "sweep", "launcher"]
HEAVY = (
    "torch", "pytorch_lightning", "wandb", "polars", "numba", "matplotlib", "optuna", "pandas", "lightgbm", "submitit",
    "pebble", "psutil", "sqlalchemy",
)  # fmt: skip


def _room_of(path: Path) -> str:
    return path.relative_to(HFT).parts[0].removesuffix(".py")


def _hft_imports(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hft":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hft."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("hft.")}
    return rooms


def test_every_module_has_a_place_in_the_order():
    rooms = {_room_of(p) for p in HFT.rglob("*.py")} - {"__init__"}
    assert rooms == set(ORDER)


@pytest.mark.parametrize("path", sorted(HFT.rglob("*.py")), ids=lambda p: str(p.relative_to(HFT)))
def test_imports_point_to_earlier_rooms(path):
    room = _room_of(path)
    if room == "__init__":
        return
    later = {r for r in _hft_imports(path) if ORDER.index(r) > ORDER.index(room)}
    # A spec's types may be named for annotations only.
    typing_only = "if TYPE_CHECKING:" in path.read_text()
    assert not later or (typing_only and later <= {"runs"}), f"{path.name} imports later rooms {later}"


@pytest.mark.parametrize("path", sorted(HFT.rglob("*.py")), ids=lambda p: str(p.relative_to(HFT)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("room", ROOMS)
def test_every_kind_has_its_yaml_and_its_test(room):
    import yaml

    for kind in Room(f"hft.{room}").names():
        path = ROOT / "conf" / room / f"{kind}.yaml"
        assert path.is_file(), f"{path} is missing"
        assert yaml.safe_load(path.read_text())["kind"] == kind
        tests = list((ROOT / "tests" / room).glob("test_*.py"))
        assert any(kind in t.read_text() for t in tests), f"no test in tests/{room} names {kind}"


def test_every_experiment_has_its_page():
    slugs = {p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml")}
    pages = {p.stem for p in (ROOT / "experiments").glob("*.md")} - {"LOG"}
    assert slugs == pages


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]])
@pytest.mark.parametrize("entry", ["train.py", "backtest.py"])
def test_start_up_imports_nothing_heavy(entry, arguments):
    code = (
        "import runpy, sys, os\n"
        f"sys.argv = [{entry!r}, *{arguments!r}]\n"
        "os.environ['COMP_LINE'] = 'python train.py bars='; os.environ['COMP_POINT'] = '21'\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit:\n    pass\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
