"""Compiled code on disk: the same numbers as without, never of other code, never from strangers.

Kernels of these tests lie in a temporary folder that counts as the package. Loading a module again
makes new dispatchers, as a new process does; what needs real processes starts some.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hft.spec import PACKAGE
from hft.system import _kernel_key, kernels

CALLEE = """
from hft.system.kernels import kernel
STEP = 2

@kernel
def step(x):
    return x * STEP
"""
CALLER = """
import numpy as np
from hft.system.kernels import kernel
from toy_callee import step

@kernel
def total(x):
    sum = 0.0
    for value in x:
        sum += step(value) / 3.0
    return sum
"""
X = np.random.default_rng(0).normal(size=50)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HFT_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(_kernel_key, "PACKAGE", tmp_path)
    kernels._note.cache_clear()
    return tmp_path / "kernels"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads modules from their source, as a new process does; gives the last one."""

    def load(**sources):
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.write_text(source)
            spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            exec(compile(source, str(path), "exec"), vars(module))
        return module

    return load


def hits(dispatcher):
    """(overloads read from the folder, overloads compiled)"""
    stats = dispatcher.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def stored(folder):
    return {path.name for path in folder.iterdir()}


def plain(source):
    return f"from hft.system.kernels import kernel\n{source}"


def test_gives_the_bits_of_a_compilation(folder, load, monkeypatch):
    first = load(toy_callee=CALLEE, toy=CALLER)
    kept = first.total(X)
    second = load(toy_callee=CALLEE, toy=CALLER)
    read = second.total(X)
    monkeypatch.setenv("HFT_KERNELS", "off")
    third = load(toy_callee=CALLEE, toy=CALLER)
    compiled = third.total(X)
    assert kept.hex() == read.hex() == compiled.hex()
    assert [hits(module.total) for module in (first, second, third)] == [(0, 1), (1, 0), (0, 1)]


def test_a_caller_brings_its_callees_along(folder, load):
    load(toy_callee=CALLEE, toy=CALLER).total(X)
    second = load(toy_callee=CALLEE, toy=CALLER)
    second.total(X)
    assert hits(second.step) == (0, 0)


def test_files_and_folder_are_private(folder, load):
    load(toy_callee=CALLEE).step(1.0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(stored(folder)) == 1


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("x * STEP", "x + STEP", 3.0),
        ("x * STEP", "x * STEP + 0.5", 2.5),
        ("STEP = 2", "STEP = 3", 3.0),
        ("STEP = 2", "STEP = -0.0", -0.0),
        ("STEP = 2", "STEP = (4, 5)[0]", 4.0),
        ("def step(x)", "def step(x, y=0)", 2.0),
        ("@kernel", "@kernel(error_model='numpy')", 2.0),
    ],
)
def test_an_edited_callee_in_another_module_is_compiled_again(folder, load, before, after, value):
    source = "from hft.system.kernels import kernel\nfrom toy_callee import step\n\n"
    source += "@kernel\ndef call(x):\n    return step(x)\n"
    assert load(toy_callee=CALLEE, toy=source).call(1.0) == 2.0
    edited = load(toy_callee=CALLEE.replace(before, after), toy=source)
    assert edited.call(1.0) == value
    assert hits(edited.call) == (0, 1)
    again = load(toy_callee=CALLEE, toy=source)
    assert again.call(1.0) == 2.0
    assert hits(again.call) == (1, 0)


def test_comments_and_moved_lines_change_nothing(folder, load):
    load(toy_callee=CALLEE).step(1.0)
    moved = load(toy_callee="# A comment.\n\n" + CALLEE)
    moved.step(1.0)
    assert hits(moved.step) == (1, 0)


def test_every_signature_has_its_own_code(folder, load):
    arguments = [X, X.astype(np.float32), X.astype(np.int64), X[::2], X[None, :].T[:, 0]]
    first = load(toy_callee=CALLEE, toy=CALLER)
    kept = [first.total(x) for x in arguments]
    second = load(toy_callee=CALLEE, toy=CALLER)
    assert [second.total(x) for x in reversed(arguments)] == kept[::-1]
    assert hits(second.total)[1] == 0


def test_named_tuples_of_one_name_do_not_share_code(folder, load):
    source = plain(
        "from typing import NamedTuple\nclass Pair(NamedTuple):\n    {0}: float\n    {1}: float\n"
        "@kernel\ndef low(pair):\n    return pair.low\n"
    )
    for names in (("low", "high"), ("high", "low")):
        module = load(toy=source.format(*names))
        assert module.low(module.Pair(**dict(zip(names, (1.0, 2.0), strict=True)))) == 1 + (
            names[0] == "high"
        )
        assert hits(module.low) == (0, 1)


def test_switches_of_numba_are_part_of_the_key(folder, load, monkeypatch):
    from numba import config

    source = plain("@kernel\ndef third(x):\n    return x[3]\n")
    load(toy=source).third(np.arange(5.0))
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    checked = load(toy=source)
    with pytest.raises(IndexError):
        checked.third(np.arange(3.0))


def test_kernels_that_call_themselves_are_kept(folder, load):
    source = plain("@kernel\ndef down(n):\n    return 0 if n < 1 else 1 + down(n - 1)\n")
    assert load(toy=source).down(5) == 5
    second = load(toy=source)
    assert (second.down(5), hits(second.down)) == (5, (1, 0))


def test_a_generator_draws_the_same_from_stored_code(folder, load):
    source = plain("@kernel\ndef draw(rng):\n    return rng.random() + rng.integers(0, 9)\n")
    drawn = []
    for counts in ((0, 1), (1, 0)):
        module, rng = load(toy=source), np.random.default_rng(7)
        drawn.append([module.draw(rng) for _ in range(5)])
        assert hits(module.draw) == counts
    assert drawn[0] == drawn[1]


NOT_KEPT = {
    "closure": """
def make(y):
    @kernel
    def call(x):
        return x + y
    return call
call = make(1.0)
""",
    "function as argument": """
@kernel
def one():
    return 1.0

@kernel
def call(x, f=one):
    return x + f()
""",
    "function of another package": """
from elsewhere import one

@kernel
def call(x):
    return x + one()
""",
    "global that is no constant": """
from numpy import sqrt

@kernel
def call(x):
    return x + sqrt(1.0)
""",
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_the_key_does_not_cover_is_compiled_in_each_process(folder, load, name):
    elsewhere = load(elsewhere=plain("@kernel\ndef one():\n    return 1.0\n")).one.py_func
    elsewhere.__code__ = elsewhere.__code__.replace(co_filename="/elsewhere.py")
    for _ in range(2):
        module = load(toy=plain(NOT_KEPT[name]))
        arguments = (2.0, module.one) if name == "function as argument" else (2.0,)
        assert module.call(*arguments) == 3.0
        assert hits(module.call) == (0, 1)


def test_code_that_holds_a_replaced_global_is_not_kept(folder, load, monkeypatch):
    """Numba compiles STEP in, so that a caller compiled later has the callee of the test."""
    first = load(toy_callee=CALLEE, toy=CALLER)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["toy_callee"], "STEP", 5)
        assert first.step(1.0) == 5
    wrong = first.total(X)  # of 5, as with njit
    second = load(toy_callee=CALLEE, toy=CALLER)
    assert second.total(X) == pytest.approx(2 / 3 * X.sum())
    assert wrong == pytest.approx(5 / 3 * X.sum())


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = b""
    elif how == "shorter than a hash":
        content = content[:20]
    else:
        content[how * (len(content) - 1) // 8] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "shorter than a hash", *range(9)])
def test_damaged_files_are_compiled_again(folder, load, how):
    load(toy_callee=CALLEE).step(1.0)
    (path,) = folder.iterdir()
    whole = path.stat().st_size
    damage(path, how)
    second, third = load(toy_callee=CALLEE), load(toy_callee=CALLEE)
    assert (second.step(1.0), hits(second.step)) == (2.0, (0, 1))
    assert (third.step(1.0), hits(third.step)) == (2.0, (1, 0))
    assert path.stat().st_size == whole


def test_a_file_under_the_name_of_another_is_not_read(folder, load):
    load(toy_callee=CALLEE).step(1.0)
    (one,) = folder.iterdir()
    load(toy_callee=CALLEE.replace("x * STEP", "x + STEP")).step(1.0)
    (other,) = set(folder.iterdir()) - {one}
    one.write_bytes(other.read_bytes())
    again = load(toy_callee=CALLEE)
    assert (again.step(1.0), hits(again.step)) == (2.0, (0, 1))


def test_whole_files_that_numba_cannot_read_are_compiled_again(folder, load):
    load(toy_callee=CALLEE).step(1.0)
    (path,) = folder.iterdir()
    path.write_bytes(kernels._digest(path.name, b"no such thing") + b"no such thing")
    again = load(toy_callee=CALLEE)
    assert (again.step(1.0), hits(again.step)) == (2.0, (0, 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder, patch: folder.chmod(0o750), "its mode must be 700, got 750"),
        (lambda folder, patch: folder.chmod(0o707), "its mode must be 700, got 707"),
        (
            lambda folder, patch: patch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1),
            "belongs to user",
        ),
        (
            lambda folder, patch: (
                folder.rename(folder.with_name("there"))
                and folder.symlink_to(folder.with_name("there"))
            ),
            "must be a folder",
        ),
    ],
)
def test_a_folder_that_is_not_private_is_ignored_and_said_once(
    folder, load, monkeypatch, caplog, make, said
):
    load(toy_callee=CALLEE).step(1.0)
    before = stored(folder)
    make(folder, monkeypatch)
    for _ in range(2):
        module = load(toy_callee=CALLEE)
        assert (module.step(1.0), hits(module.step)) == (2.0, (0, 1))
    module.step(1)  # another signature, which is not written
    assert stored(folder) == before
    (record,) = caplog.records
    assert said in record.message
    assert str(folder) in record.message
    assert "HFT_KERNELS=off" in record.message


@pytest.mark.parametrize("inside", ["file", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_costs_only_time(
    load, tmp_path, monkeypatch, caplog, inside
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_kernel_key, "PACKAGE", tmp_path)
    monkeypatch.setenv("HFT_KERNELS", str(tmp_path / inside / "kernels"))
    kernels._note.cache_clear()
    module = load(toy_callee=CALLEE)
    assert (module.step(1.0), module.step(1)) == (2.0, 2)
    (record,) = caplog.records
    assert "cannot be kept" in record.message
    assert "HFT_KERNELS=<folder>" in record.message


def test_a_full_disk_costs_only_time(folder, load, monkeypatch, caplog):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert load(toy_callee=CALLEE).step(1.0) == 2.0
    assert stored(folder) == set()
    assert "No space left on device" in caplog.text


def test_off_reads_and_writes_nothing(folder, load, monkeypatch):
    load(toy_callee=CALLEE).step(1.0)
    before = stored(folder)
    monkeypatch.setenv("HFT_KERNELS", "off")
    module = load(toy_callee=CALLEE)
    module.step(1.0)
    module.step(1)
    assert hits(module.step) == (0, 2)
    assert stored(folder) == before


def test_the_folder_is_beside_a_checkout_and_else_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("HFT_KERNELS", raising=False)
    assert kernels.default_folder() == PACKAGE.parent / ".cache" / "kernels"
    monkeypatch.setattr(kernels, "PACKAGE", tmp_path / "site-packages" / "hft")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernels.default_folder() == tmp_path / ".cache" / "hft" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert kernels.default_folder() == tmp_path / "xdg" / "hft" / "kernels"
    monkeypatch.setenv("HFT_KERNELS", "relative")
    assert kernels.default_folder() == Path.cwd() / "relative"


def test_what_nobody_reads_goes(folder, load):
    load(toy_callee=CALLEE).step(1.0)
    (path,) = folder.iterdir()
    (folder / f".{path.name}-0123").write_bytes(b"left by a killed writer")
    (folder / "notes.txt").write_text("of a user")
    long_ago = time.time() - 29 * 86_400
    for file in folder.iterdir():
        os.utime(file, (long_ago, long_ago))
    assert kernels.prune_kernels(folder) == [folder / f".{path.name}-0123"]
    load(toy_callee=CALLEE).step(1.0)  # reading it makes it young
    assert kernels.prune_kernels(folder, days=1) == []
    assert kernels.prune_kernels(folder, days=0) == [path]
    assert kernels.list_kernels(folder) == []
    assert stored(folder) == {"notes.txt"}


def test_every_kernel_of_the_house_is_kept():
    """Each one's key covers it, so that a run with warm code compiles nothing."""
    found = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        if not re.search(r"^@kernel", path.read_text(), re.MULTILINE):
            continue
        module = importlib.import_module(
            ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        )
        for value in vars(module).values():
            if _kernel_key._is_dispatcher(value):
                assert isinstance(value._cache, kernels._Store)
                assert _kernel_key._describe_dispatcher(value, {})
                found += 1
    assert found > 40


def test_no_run_holds_compiled_code(smoke):
    assert [path for path in smoke.root.rglob("*") if kernels.SUFFIX in path.name] == []


# In real processes, on a copy of the few files of hft that a kernel needs.


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "hft" / "system").mkdir(parents=True)
    for name in ("__init__", "spec", "system/__init__", "system/files"):
        (tmp_path / f"hft/{name}.py").write_bytes((PACKAGE / f"{name}.py").read_bytes())
    for name in ("kernels", "numba_internals", "_kernel_key"):
        (tmp_path / f"hft/system/{name}.py").write_bytes(
            (PACKAGE / f"system/{name}.py").read_bytes()
        )
    (tmp_path / "hft/toy_callee.py").write_text(CALLEE)
    (tmp_path / "hft/toy.py").write_text(CALLER.replace("toy_callee", "hft.toy_callee"))
    return tmp_path


TOTAL = (
    "import sys, hft.system.kernels; assert 'numba' not in sys.modules\n"
    "import numpy as np; from hft.toy import total\n"
    "print(total(np.arange(9.0)), sum(total.stats.cache_hits.values()))"
)


def start(tree, code=TOTAL):
    environment = os.environ | {"PYTHONPATH": str(tree), "HFT_KERNELS": str(tree / "kernels")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tree,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def output(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    return out.split()


def test_processes_share_code_and_see_each_edit(tree):
    at_once = [output(process) for process in [start(tree), start(tree)]]
    assert [total for total, _ in at_once] == ["24.0", "24.0"]
    assert "0" in [hits for _, hits in at_once]  # the later one may find what the other has kept
    assert output(start(tree)) == ["24.0", "1"]
    (tree / "hft/toy_callee.py").write_text(CALLEE.replace("x * STEP", "x * 5"))
    assert output(start(tree)) == ["60.0", "0"]


def test_a_writer_that_is_killed_leaves_nothing_wrong(tree):
    kill = (
        "import os, signal, pathlib\n"
        "pathlib.Path.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = start(tree, kill + TOTAL)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (partial,) = stored(tree / "kernels")
    assert partial.startswith(".")
    assert output(start(tree)) == ["24.0", "0"]
    assert output(start(tree)) == ["24.0", "1"]
