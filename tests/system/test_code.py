"""The hash of a module's code: statements count, in every module it imports; words do not."""

from __future__ import annotations

import pytest

from hft.system import code
from hft.system.code import CodeError, syntax_hash


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small hft of its own: `hash_of(module, {file: source})` writes files and hashes."""
    root = tmp_path / "hft"
    monkeypatch.setattr(code, "PACKAGE", root)
    files = {
        "__init__.py": "",
        "spec.py": "X = 1\n",
        "alone.py": "A = 1\n",
        "fees.py": "from hft.spec import X\n\n\ndef fee():\n    return X\n",
        "bars/__init__.py": "class BarSpec:\n    pass\n",
        "bars/_walk.py": "STEP = 1\n",
        "bars/dollar.py": (
            "from hft.bars import BarSpec\n\n\n"
            "def f():\n    from ._walk import STEP\n    return STEP\n"
        ),
        "bars/time.py": "import hft.fees as fees\nfrom hft.bars import _walk\n",
        "bars/loop.py": "import hft.bars.back\n",
        "bars/back.py": "import hft.bars.loop\n",
    }

    def hash_of(module, changed=None):
        for name, text in (files | (changed or {})).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        code._read_module.cache_clear()
        return syntax_hash(module)

    yield hash_of
    code._read_module.cache_clear()


def test_docstrings_comments_and_layout_do_not_count(package):
    text = (
        '"""What it is."""\n\n# why\nfrom hft.spec import X\n'
        'def fee():\n    """Bps."""\n    return (\n        X\n    )\n'
    )
    assert package("hft.fees", {"fees.py": text}) == package("hft.fees")


def test_code_counts(package):
    changed = "from hft.spec import X\n\n\ndef fee():\n    return X + 1\n"
    assert package("hft.fees", {"fees.py": changed}) != package("hft.fees")


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("hft.fees", {"spec.py": "X = 2\n"}),  # from hft.spec import attribute
        ("hft.bars.time", {"spec.py": "X = 2\n"}),  # import hft.fees as, which imports hft.spec
        ("hft.bars.time", {"bars/_walk.py": "STEP = 2\n"}),  # from package import module
        ("hft.bars.dollar", {"bars/_walk.py": "STEP = 2\n"}),  # relative, inside a function
        (
            "hft.bars._walk",
            {"bars/__init__.py": "class BarSpec:\n    x = 1\n"},
        ),  # the package runs first
        ("hft.bars.loop", {"bars/back.py": "import hft.bars.loop\nY = 1\n"}),  # a cycle ends
    ],
)
def test_code_of_imported_modules_counts(package, module, changed):
    assert package(module, changed) != package(module)


def test_code_of_other_modules_does_not_count(package):
    assert package("hft.bars.dollar", {"alone.py": "A = 2\n", "fees.py": "Z = 1\n"}) == package(
        "hft.bars.dollar"
    )


def test_a_module_that_is_not_there_is_refused(package):
    package("hft.fees")
    with pytest.raises(CodeError, match=r"'hft\.fee': must be a module of hft"):
        syntax_hash("hft.fee")


def test_code_is_read_once_per_process(package, monkeypatch):
    package("hft.fees")
    monkeypatch.setattr(code.ast, "parse", None)
    assert syntax_hash("hft.fees")
