"""Schemas know every key that ships, and are written where they belong."""

from __future__ import annotations

import json

import pytest
import yaml

from hft.cli import schema
from hft.cli.schema import SchemaError, write_schemas
from hft.spec import PACKAGE
from hft.system.conf import CONF
from hft.system.files import FileError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    assert sorted(write_schemas(folder)) == sorted(folder.iterdir())
    return folder


def test_every_yaml_of_a_room_names_its_schema(written):
    for path in CONF.glob("*/*.yaml"):
        first = path.read_text().splitlines()[0]
        if "yaml-language-server" in first:
            named = path.parent / first.partition("$schema=")[2]
            assert named.resolve() == CONF / "schema" / f"{path.parent.name}.json"
            assert (written / named.name).is_file()


def test_schemas_know_every_key_that_ships(written):
    of_bars = json.loads((written / "bars.json").read_text())
    for kind in ("tick", "dollar_adaptive"):
        body = yaml.safe_load((CONF / "bars" / f"{kind}.yaml").read_text())
        definitions = [d for d in of_bars["$defs"].values() if kind in str(d["properties"]["kind"])]
        assert any(set(body) <= set(d["properties"]) for d in definitions)
    assert "required" not in json.dumps(of_bars)


def test_a_number_may_be_an_interpolation_and_a_set_may_include_others(written):
    fees = json.loads((written / "fees.json").read_text())
    taker = fees["$defs"]["FeeSchedule"]["properties"]["taker_bps"]
    assert {option["type"] for option in taker["anyOf"]} == {"number", "string"}
    assert {"type": "array", "items": {}} in fees["additionalProperties"]["anyOf"]


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    folder = tmp_path / "new" / "schema"
    assert schema.main([str(folder)]) == 0
    n_files = len(list(folder.iterdir()))
    assert capsys.readouterr().out == f"{n_files} schemas in {folder}\n"


def test_an_installed_package_is_left_alone(tmp_path):
    folder = PACKAGE / "conf" / "schema"
    with pytest.raises(SchemaError, match=r"must lie outside of the installed package .* got "):
        schema.main([str(folder)])
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"taken/.*cannot be written .*: hft schema <folder>"):
        schema.main([str(tmp_path / "taken")])
