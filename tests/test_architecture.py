"""The shape of the house: wings in order, folders are choices, tests mirror, start-up stays
light.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft.spec import Room

ROOT = Path(__file__).parents[1]
HFT = ROOT / "hft"
# The data's way. A module imports from its own wing and from those before it.
WINGS = [
    "spec", "clock", "schema", "metrics", "system", "market", "dataset", "statistics", "learning",
    "trading", "tracking", "report", "config", "runs", "space", "study", "search", "live", "cli",
]  # fmt: skip
SUCCESSORS = {"studies.py", "audit.py"}  # what was typed before the one command; they name it
HEAVY = (
    "torch", "pytorch_lightning", "wandb", "polars", "numba", "matplotlib", "optuna", "pandas",
    "lightgbm", "submitit", "pebble", "psutil", "sqlalchemy",
)  # fmt: skip
MODULES = sorted(path for path in HFT.rglob("*.py") if path.parent != HFT or path.stem in WINGS)
CHOICES = sorted(
    path
    for path in HFT.glob("*/*")
    if path.is_dir() and (path / "__init__.py").exists() and path.name != "__pycache__"
)


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {_name_of(path) for path in HFT.rglob("*.py")}


def _nodes(node: ast.AST, *, typing_too: bool) -> Iterator[ast.AST]:
    yield node
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node) if typing_too or not for_types else ():
        yield from _nodes(child, typing_too=typing_too)


def _imports(path: Path, *, typing_too: bool = True) -> set[str]:
    """The modules of hft that a file imports, anywhere in its body."""
    found = set()
    for node in _nodes(ast.parse(path.read_text()), typing_too=typing_too):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hft":
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in NAMES else node.module for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("hft.")}
    return found


def _wing_of(module: str) -> str:
    return module.split(".")[1]


def test_every_module_is_tracked():
    """A pattern of .gitignore meant for run folders must not hide a wing, as `runs/` would."""
    if not (ROOT / ".git").exists():
        pytest.skip("an archive of the project, no checkout: git tracks nothing here")
    tracked = subprocess.run(
        ["git", "ls-files", "hft", "hydra_plugins"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    found = [p for folder in ("hft", "hydra_plugins") for p in (ROOT / folder).rglob("*.py")]
    untracked = {str(path.relative_to(ROOT)) for path in found} - set(tracked)
    assert not untracked, f"git add {' '.join(sorted(untracked))}"


def test_every_module_has_a_wing():
    outside = {p.name for p in HFT.glob("*.py") if p.stem not in WINGS}
    assert outside <= {"__init__.py", "__main__.py", *SUCCESSORS}
    wings = {p.name for p in HFT.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert wings <= set(WINGS)


@pytest.mark.parametrize("path", MODULES, ids=_name_of)
def test_imports_point_to_earlier_wings(path):
    own = WINGS.index(_wing_of(_name_of(path)))
    later = {m for m in _imports(path) - {"hft"} if WINGS.index(_wing_of(m)) > own}
    assert not later, f"{path.relative_to(ROOT)} imports from later wings: {sorted(later)}"


def test_no_modules_import_each_other():
    graph = {_name_of(path): _imports(path, typing_too=False) & NAMES for path in MODULES}
    state: dict[str, str] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert state.get(name) != "open", f"a circle: {' -> '.join((*way, name))}"
        if name in state:
            return
        state[name] = "open"
        for other in sorted(graph.get(name, ())):
            visit(other, (*way, name))
        state[name] = "done"

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("folder", CHOICES, ids=_name_of)
def test_a_folder_of_a_wing_is_a_choice(folder):
    assert (ROOT / "conf" / folder.name).is_dir(), f"{folder}: no group conf/{folder.name}/"
    assert (ROOT / "tests" / folder.relative_to(HFT)).is_dir(), f"{folder}: its tests are elsewhere"


@pytest.mark.parametrize("path", MODULES, ids=_name_of)
def test_a_file_of_a_wing_is_a_fact(path):
    import yaml

    is_of_a_wing = path.parent.parent == HFT and path.stem != "__init__"
    choices = (ROOT / "conf" / path.stem).glob("*.yaml") if is_of_a_wing else ()
    assert not [p.name for p in choices if "kind" in yaml.safe_load(p.read_text())]


@pytest.mark.parametrize("folder", CHOICES, ids=_name_of)
def test_every_kind_has_its_yaml_and_its_test(folder):
    import yaml

    families = folder.name == "features"  # a set of features is a YAML, a family of them a file
    kinds = [] if families else Room(_name_of(folder)).names()
    for kind in kinds:
        path = ROOT / "conf" / folder.name / f"{kind}.yaml"
        assert path.is_file(), f"{path} is missing"
        body = yaml.safe_load(path.read_text())
        assert kind in (
            body.get("kind"),
            *(e.get("kind") for e in body.values() if isinstance(e, dict)),
        )
        tests = list((ROOT / "tests" / folder.relative_to(HFT)).glob("test_*.py"))
        assert any(kind in t.read_text() for t in tests), (
            f"no test beside {folder.name} names {kind}"
        )


def test_tests_mirror():
    """tests/<wing>/<choice>/: no folder of tests without its wing or choice."""
    folders = {p.parent.relative_to(ROOT / "tests") for p in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in sorted(folders) if not (HFT / folder).is_dir()] == []


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
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]


OURS = ("hft", "hydra_plugins", "benchmarks")
PUBLIC_ALL_THE_SAME = {"os._exit"}  # documented by Python
SOURCES = sorted([*HFT.rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py"), *ROOT.glob("*.py")])


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _defined_private(path: Path) -> set[str]:
    """The private names that a file gives to something: functions, classes, fields, variables."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            found |= {node.attr} if is_own else set()
    return {name for name in found if _is_private(name)}


def _foreign_private(path: Path, ours: set[str]) -> list[str]:
    """What a file reads of other packages by a name that they keep private."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if ast.unparse(node.value) not in ("self", "cls", "super()") and node.attr not in ours:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            if names[0] not in OURS and any(map(_is_private, names)):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
            if names[0] not in OURS and any(map(_is_private, names)):
                found.append(ast.unparse(node))
    return sorted(set(found) - PUBLIC_ALL_THE_SAME)


def test_private_names_of_other_packages_stand_in_their_boundary_module():
    """A new version of a library can break `<library>_internals.py` alone, whose tests say so."""
    ours = {name for path in SOURCES for name in _defined_private(path)}
    foreign = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if not path.stem.endswith("_internals") and (names := _foreign_private(path, ours))
    }
    assert foreign == {}


INTERNALS = sorted(HFT.rglob("*_internals.py"))


@pytest.mark.parametrize("path", INTERNALS, ids=_name_of)
def test_every_boundary_module_has_its_test(path):
    mirrored = ROOT / "tests" / path.relative_to(HFT).with_name(f"test_{path.name}")
    assert mirrored.is_file()
