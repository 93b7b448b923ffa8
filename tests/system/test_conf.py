"""One reader of YAML, with one kind of message."""

from __future__ import annotations

import pytest

from hft.system.conf import CONF, ConfError, read_yaml


def test_the_shipped_yaml_is_found():
    assert read_yaml(CONF / "bars" / "tick.yaml")["kind"] == "tick"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n"])
def test_an_empty_file_is_an_empty_mapping(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1\n", r"a\.yaml, line 3, column 1: not YAML, .*; mend the file"),
        (b"- a\n", r"a\.yaml: must hold a mapping, got list; mend the file"),
        (b"\xff\xfe\xff", r"a\.yaml: cannot be read \('utf-8' codec .*; mend the file"),
        (b"a: \x00\n", r"a\.yaml: not YAML, .*; mend the file"),
    ],
)
def test_any_other_file_is_named(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfError, match=r"a\.yaml: cannot be read \(.*No such file"):
        read_yaml(tmp_path / "a.yaml")
