"""Files are whole or not at all, and what a stranger wrote is one clear error."""

from __future__ import annotations

import ast
import subprocess
import threading
import time

import polars as pl
import pytest

from hft.spec import PACKAGE, UserError
from hft.system import files
from hft.system.files import (
    MAX_JSON_BYTES,
    FileError,
    read_json,
    read_note,
    write_atomic,
    write_json,
)
from hft.system.parquet import read_frame, write_frame


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_readers_see_whole_files_only(tmp_path):
    path = tmp_path / "a.json"
    texts = [bytes([65 + i]) * 200_000 for i in range(4)]
    write_atomic(path, texts[0])
    stop = time.monotonic() + 0.3

    def write():
        while time.monotonic() < stop:
            for text in texts:
                write_atomic(path, text, durable=False)

    writer = threading.Thread(target=write)
    writer.start()
    while time.monotonic() < stop:
        assert path.read_bytes() in texts
    writer.join()


def test_a_mapping_is_read_back(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1.5, "a": [1, None]})
    assert path.read_text() == '{\n  "b": 1.5,\n  "a": [\n    1,\n    null\n  ]\n}\n'
    assert read_json(path, remedy="restore it") == {"b": 1.5, "a": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert read_json(path, remedy="restore it")["b"] == 1.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json: missing, so there is no study; restore it"),
        (b"{", r"a\.json: cannot be read \(Expecting .*\); restore it"),
        (b"[" * 100_000, r"a\.json: cannot be read \(maximum recursion .*\); restore it"),
        (b"\xff", r"a\.json: cannot be read \(.*\); restore it"),
        (b"[1]", r"a\.json: must hold a mapping, got list; restore it"),
        (b" " * (MAX_JSON_BYTES + 1), r"must have at most 16777216 bytes\); restore it"),
    ],
)
def test_what_is_no_mapping_is_one_clear_error(tmp_path, content, message):
    class StudyError(UserError):
        pass

    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=message):
        read_json(path, error=StudyError, missing="so there is no study", remedy="restore it")


def test_a_note_that_cannot_be_read_is_none(tmp_path):
    path = tmp_path / "note.json"
    assert read_note(path, "storage") is None
    write_json(path, {"storage": "journal", "n": 3})
    assert read_note(path, "storage") == "journal"
    assert read_note(path, "n") is None
    path.write_bytes(b"{")
    assert read_note(path, "storage") is None


def test_frames_carry_their_hash(tmp_path):
    frame = pl.DataFrame({"a": [1, 2]})
    path = tmp_path / "a.parquet"
    write_frame(path, frame)
    assert read_frame(path, remedy="score again").equals(frame)
    check = ["sha256sum", "--check", "a.sha256"]
    subprocess.run(check, cwd=tmp_path, capture_output=True, check=True)
    path.with_suffix(".sha256").unlink()
    with pytest.raises(FileError, match=r"a\.parquet: missing or unreadable .*; score again"):
        read_frame(path, remedy="score again")


def writes(path):
    """Lines of a module that write a file in a way of their own."""
    own = ("write_text", "write_bytes", "save_model", "save_file", "write_csv", "savefig")
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        opens = name == "open" and any(m in ("w", "wb", "x", "xb") for m in modes)
        # Into memory, such as figure.savefig(data), is fine: what is written of it is bytes.
        to_memory = node.args and ast.unparse(node.args[0]) in ("data", "image", "buffer")
        if opens or (name in own and node.args and not to_memory):
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)[:60]}"


def test_every_file_goes_through_the_atomic_writer():
    """But the files of a cache entry, whose folder is renamed whole."""
    exempt = {"system/files.py", "system/cache.py"}
    found = [
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in exempt
        for line in writes(path)
    ]
    assert found == []
