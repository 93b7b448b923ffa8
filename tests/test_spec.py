"""Parsing: every mistake of a config in one message, each with its path, value, rule and a
suggestion.

The rooms of this file are a small package of their own, so that the tests hold whatever the real
rooms offer.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from hft import spec as spec_module
from hft.spec import (
    PACKAGE,
    Kind,
    Role,
    Room,
    Spec,
    SpecError,
    UserError,
    did_you_mean,
    fingerprint,
    numbers_of,
    parse,
    roles_of,
)

ROOMS = {
    "__init__.py": "",
    "bars/__init__.py": """
        from hft.spec import Kind
        class BarSpec(Kind):
            pass
        """,
    "bars/dollar.py": """
        from typing import Literal
        from pydantic import Field
        from shop.bars import BarSpec
        class Dollar(BarSpec):
            kind: Literal["dollar"]
            size: float = Field(gt=0, description="traded value that closes a bar, USD")
        """,
    "bars/time.py": """
        from typing import Literal
        from pydantic import Field
        from shop.bars import BarSpec
        class Time(BarSpec):
            kind: Literal["time"]
            size: int = Field(gt=0, description="length of a bar, s")
            offset: int = Field(ge=0, description="shift of the grid, s")
        """,
    "bars/_walk.py": "raise AssertionError('private modules are no kinds')",
    "bars/broken.py": "raise AssertionError('only the chosen kind is imported')",
    "features/__init__.py": "",
    "features/flow.py": """
        from typing import Literal
        from pydantic import Field
        from hft.spec import Kind
        class Ofi(Kind):
            kind: Literal["ofi"]
            window: int = Field(gt=0, description="rolling window, bars")
        class Imbalance(Kind):
            kind: Literal["imbalance"]
            window: int = Field(gt=0, description="rolling window, bars")
            levels: tuple[int, ...] = Field(description="book levels")
        """,
    "features/risk.py": """
        from typing import Literal
        from pydantic import Field
        from hft.spec import Kind
        class Volatility(Kind):
            kind: Literal["volatility"]
            span: float = Field(gt=0, description="span, bars")
        """,
    "optim/__init__.py": "",
    "optim/adamw.py": """
        from typing import Literal
        from hft.spec import Kind
        class AdamW(Kind):
            kind: Literal["adamw"]
            lr: float
        """,
}


class Paths(Spec):
    runs: str = Field(description="folder of the runs")


class Fee(Spec):
    taker_bps: float = Field(description="taker fee, bps")


class Config(Spec):
    seed: int = Field(ge=0, description="seed of everything random")
    bars: Annotated[Kind, Room("shop.bars")]
    features: Annotated[dict[str, Kind], Room("shop.features", families=True)] = Field(min_length=1)
    optim: Annotated[Kind, Room("shop.optim")]
    paths: Paths
    fees: dict[str, Fee]

    @model_validator(mode="after")
    def _even_seed(self) -> Config:
        if self.seed == 13:
            raise ValueError("seed must not be 13")
        return self


@pytest.fixture(autouse=True)
def rooms(tmp_path, monkeypatch):
    for name, text in ROOMS.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(spec_module, "PACKAGE", tmp_path / "shop")
    importlib.invalidate_caches()
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "shop"]:
        del sys.modules[name]


def good(**changes):
    plain = {
        "seed": 7,
        "bars": {"kind": "dollar", "size": 1e6},
        "features": {
            "ofi": {"kind": "ofi", "window": 10},
            "book": {"kind": "imbalance", "window": 20, "levels": [1, 5]},
            "vol": {"kind": "volatility", "span": 50},
        },
        "optim": {"kind": "adamw", "lr": 1e-3},
        "paths": {"runs": "runs"},
        "fees": {"vip0": {"taker_bps": 5.0}, "rebate": {"taker_bps": -0.5}},
    }
    return plain | changes


def errors_of(plain):
    with pytest.raises(SpecError) as error:
        parse(Config, plain)
    return str(error.value).splitlines()


def test_a_good_config_becomes_the_chosen_kinds():
    config = parse(Config, good())
    assert type(config.bars).__name__ == "Dollar"
    assert config.bars.size == 1e6
    assert [type(f).__name__ for f in config.features.values()] == [
        "Ofi",
        "Imbalance",
        "Volatility",
    ]
    assert config.features["book"].levels == (1, 5)
    assert config.features["vol"].span == 50.0
    assert isinstance(config, Config)
    assert "shop.bars.broken" not in sys.modules


def test_plain_data_and_spec_are_two_sides_of_one_thing():
    config = parse(Config, good())
    plain = config.plain()
    assert json.loads(json.dumps(plain)) == plain == parse(Config, plain).plain()
    assert list(plain["features"]) == ["ofi", "book", "vol"]
    assert parse(Config, plain).fingerprint() == config.fingerprint() == fingerprint(plain)


def test_a_config_is_frozen():
    config = parse(Config, good())
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 8
    with pytest.raises(ValidationError, match="frozen"):
        config.bars.size = 2.0


def test_the_input_is_left_alone():
    plain = good(features={"ofi": {"kind": "ofi", "window": 10}, "vol": None})
    before = json.dumps(plain)
    parse(Config, plain)
    assert json.dumps(plain) == before


ONE_MISTAKE = {
    "unknown field": (
        {"bars": {"kind": "dollar", "size": 1.0, "sizee": 2}},
        "bars.sizee: Dollar has no such field, did you mean 'size'?",
    ),
    "unknown field, nothing close": (
        {"bars": {"kind": "dollar", "size": 1.0, "xyz": 2}},
        "bars.xyz: Dollar has no such field, its fields: kind, size",
    ),
    "field of another kind": (
        {"bars": {"kind": "dollar", "size": 1.0, "offset": 2}},
        "bars.offset: Dollar has no such field, its fields: kind, size",
    ),
    "unknown group": (
        {"bar": {"kind": "dollar"}},
        "bar: Config has no such field, did you mean 'bars'?",
    ),
    "unknown field of a plain spec": (
        {"paths": {"runs": "runs", "runz": "x"}},
        "paths.runz: Paths has no such field, did you mean 'runs'?",
    ),
    "wrong type": ({"seed": "seven"}, "seed: must be a valid integer, got 'seven'"),
    "number as text": (
        {"bars": {"kind": "dollar", "size": "1e6"}},
        "bars.size: must be a valid number, got '1e6'",
    ),
    "truth as number": ({"seed": True}, "seed: must be a valid integer, got True"),
    "fraction for a count": (
        {"bars": {"kind": "time", "size": 1.5, "offset": 0}},
        "bars.size: must be a valid integer, got 1.5",
    ),
    "out of range": (
        {"bars": {"kind": "dollar", "size": 0}},
        "bars.size: must be greater than 0, got 0",
    ),
    "model rule": ({"seed": 13}, "config: seed must not be 13"),
    "unknown kind": (
        {"bars": {"kind": "dolar", "size": 1.0}},
        "bars.kind: no such kind 'dolar', did you mean 'dollar'? (one of broken, dollar, time)",
    ),
    "private module": (
        {"bars": {"kind": "walk", "size": 1.0}},
        "bars.kind: no such kind 'walk' (one of broken, dollar, time)",
    ),
    "no kind": (
        {"bars": {"size": 1.0}},
        "bars: must be a mapping with a 'kind', got {'size': 1.0}; one of broken, dollar, time",
    ),
    "kind alone": (
        {"bars": "dollar"},
        "bars: must be a mapping with a 'kind', got 'dollar'; one of broken, dollar, time",
    ),
    "null": (
        {"bars": None},
        "bars: must be a mapping with a 'kind', got None; one of broken, dollar, time",
    ),
    "missing number": (
        {"bars": {"kind": "dollar"}},
        "bars.size: must be given (traded value that closes a bar, USD)",
    ),
    "number not set yet": (
        {"bars": {"kind": "dollar", "size": "???"}},
        "bars.size: has no value yet (traded value that closes a bar, USD); set it on the command "
        "line: bars.size=...",
    ),
    "kind not set yet": (
        {"bars": {"kind": "???"}},
        "bars.kind: must be the name of a kind (a config cannot name code), got '???'; one of "
        "broken, dollar, time",
    ),
    "feature field": (
        {"features": {"ofi": {"kind": "ofi", "windw": 10, "window": 5}}},
        "features.ofi.windw: Ofi has no such field, did you mean 'window'?",
    ),
    "feature range": (
        {"features": {"ofi": {"kind": "ofi", "window": 0}}},
        "features.ofi.window: must be greater than 0, got 0",
    ),
    "feature named as its kind": (
        {
            "features": {
                "ofi": {"kind": "ofi", "window": 0},
                "vol": {"kind": "volatility", "span": 5},
            }
        },
        "features.ofi.window: must be greater than 0, got 0",
    ),
    "feature missing": (
        {"features": {"a": {"kind": "ofi"}, "vol": {"kind": "volatility", "span": 5}}},
        "features.a.window: must be given (rolling window, bars)",
    ),
    "feature kind": (
        {"features": {"a": {"kind": "ofy", "window": 1}, "vol": {"kind": "volatility", "span": 5}}},
        "features.a.kind: no such kind 'ofy', did you mean 'ofi'? "
        "(one of imbalance, ofi, volatility)",
    ),
    "feature is no mapping": (
        {"features": {"a": 10, "vol": {"kind": "volatility", "span": 5}}},
        "features.a: must be a mapping with a 'kind', got 10; one of imbalance, ofi, volatility",
    ),
    "element of a list": (
        {
            "features": {
                "b": {"kind": "imbalance", "window": 1, "levels": [1, "x"]},
                "vol": {"kind": "volatility", "span": 5},
            }
        },
        "features.b.levels.1: must be a valid integer, got 'x'",
    ),
    "set is no mapping": (
        {"features": ["ofi"]},
        "features: must be a mapping of names to {kind, ...}, got ['ofi']",
    ),
    "every kind of a set": (
        {"features": {"a": {"kind": "ofy", "window": 1}}},
        "features.a.kind: no such kind 'ofy', did you mean 'ofi'? "
        "(one of imbalance, ofi, volatility)",
    ),
    "field in a mapping of specs": (
        {"fees": {"vip0": {"taker_bps": 5.0, "takr_bps": 1}}},
        "fees.vip0.takr_bps: Fee has no such field, did you mean 'taker_bps'?",
    ),
    "missing in a mapping of specs": (
        {"fees": {"vip0": {}}},
        "fees.vip0.taker_bps: must be given (taker fee, bps)",
    ),
    "plain spec is no mapping": ({"paths": "runs"}, "paths: must be an object, got 'runs'"),
}


@pytest.mark.parametrize(("changes", "message"), ONE_MISTAKE.values(), ids=ONE_MISTAKE)
def test_one_mistake_is_one_line(changes, message):
    assert errors_of(good(**changes)) == [message]


@pytest.mark.parametrize("missing", ["seed", "bars", "features", "paths"])
def test_a_missing_group_is_one_line(missing):
    (line,) = errors_of({k: v for k, v in good().items() if k != missing})
    assert line.startswith(f"{missing}: must be given")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value):
    (line,) = errors_of(good(bars={"kind": "dollar", "size": value}))
    assert line.startswith("bars.size: ")
    assert "finite" in line


@pytest.mark.parametrize("empty", [{}, {"ofi": None}])
def test_an_empty_set_is_refused_where_one_is_needed(empty):
    (line,) = errors_of(good(features=empty))
    assert line.startswith("features: ")
    assert "at least 1" in line


CODE = [
    "os.system",
    "hft.market.bars.dollar",
    "shop.bars.dollar",
    "../bars/dollar",
    "_walk",
    "__init__",
    "Dollar",
    "",
    "dollar\n",
]


@pytest.mark.parametrize("kind", [*CODE, ["dollar"], {"_target_": "os.system"}, 1, None])
@pytest.mark.parametrize("group", ["bars", "optim", "features"])
def test_a_kind_cannot_name_code(group, kind, monkeypatch):
    def refuse(name):
        raise AssertionError(f"imported {name}")

    wanted = {"kind": kind, "size": 1.0}
    path = "features.a" if group == "features" else group
    Room("shop.features", families=True).specs()  # families are listed in the message
    real = importlib.import_module
    Room("shop.optim").specs()
    known = {"shop.features.flow", "shop.features.risk", "shop.optim.adamw"}
    monkeypatch.setattr(
        importlib, "import_module", lambda name: real(name) if name in known else refuse(name)
    )
    changes = {group: {"a": wanted} if group == "features" else wanted}
    changes |= (
        {"bars": {"kind": "nothing"}} if group != "bars" else {}
    )  # keeps the good kind from being imported
    lines = [line for line in errors_of(good(**changes)) if line.startswith(path)]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"{path}.kind: must be the name of a kind (a config cannot name code), got {kind!r}; one of"
    )


def test_all_mistakes_come_at_once():
    plain = good(
        seed=-1,
        bars={"kind": "dolar", "size": -1},
        features={
            "ofi": {"kind": "ofi", "window": 0, "windw": 3},
            "x": {"kind": "os.system"},
            "vol": {"kind": "volatility", "span": "???"},
        },
        optim={"kind": "adamw"},
        label={"width": 1},
    )
    del plain["paths"]
    assert [line.split(": ")[0] for line in errors_of(plain)] == [
        "bars.kind",
        "features.ofi.window",
        "features.ofi.windw",
        "features.vol.span",
        "features.x.kind",
        "label",
        "optim.lr",
        "paths",
        "seed",
    ]


def test_parsing_leaves_the_config_class_alone():
    before = {name: repr(field) for name, field in Config.model_fields.items()}
    parse(Config, good())
    errors_of(good(bars={"kind": "time"}))
    assert {name: repr(field) for name, field in Config.model_fields.items()} == before
    assert parse(Config, good(bars={"kind": "time", "size": 60, "offset": 0})).bars.size == 60


def test_null_entries_of_a_set_are_dropped():
    config = parse(Config, good(features={"ofi": None, "vol": {"kind": "volatility", "span": 5}}))
    assert list(config.features) == ["vol"]


def test_one_kind_may_stand_twice_in_a_set():
    config = parse(
        Config, good(features={f"ofi_{w}": {"kind": "ofi", "window": w} for w in (20, 10)})
    )
    assert {name: f.window for name, f in config.features.items()} == {"ofi_20": 20, "ofi_10": 10}
    assert list(config.features) == ["ofi_20", "ofi_10"]


def test_rooms_tell_what_they_offer_without_importing_it():
    assert Room("shop.bars").names() == ["broken", "dollar", "time"]
    assert "shop.bars.dollar" not in sys.modules
    assert Room("shop.features", families=True).names() == ["imbalance", "ofi", "volatility"]
    assert Room("shop.optim").names() == ["adamw"]


def test_a_fingerprint_is_of_the_content():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert len(fingerprint(None)) == 64
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


def test_suggestions_are_close_or_none():
    assert did_you_mean("widht", ["width", "horizon"]) == ", did you mean 'width'?"
    assert did_you_mean("zzz", ["width"]) == ""


def test_config_errors_are_user_errors():
    assert issubclass(SpecError, UserError)
    assert issubclass(UserError, ValueError)


def test_importing_spec_is_light():
    heavy = ("polars", "numba", "torch", "numpy", "hydra")
    code = f"import sys, hft.spec; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"


# Stored data of an older version


def since(**extra):
    """A field that was added since; `before` is the value that reproduces what was done then."""
    return Field(description="added since", json_schema_extra=extra or None)


class OlderFee(Fee):
    maker_bps: float = since(before=1.5)


class Grown(Config):
    seeds: int = since(before=1)
    nested: OlderFee = since(before={"taker_bps": 2.0})
    fees: dict[str, OlderFee]
    given: int = since()


def stored(**changes):
    return good(given=1, **changes)


def test_stored_data_get_the_values_of_before_everywhere():
    config = parse(Grown, stored(), stored=True)
    assert (config.seeds, config.nested.maker_bps) == (1, 1.5)
    assert {name: fee.maker_bps for name, fee in config.fees.items()} == {
        "vip0": 1.5,
        "rebate": 1.5,
    }


def test_what_is_stored_stands_before_the_value_of_before():
    fees = {"vip0": {"taker_bps": 5.0, "maker_bps": 0.0}}
    config = parse(Grown, stored(seeds=4, fees=fees, nested={"taker_bps": 1.0}), stored=True)
    assert (config.seeds, config.nested.taker_bps, config.nested.maker_bps) == (4, 1.0, 1.5)
    assert config.fees["vip0"].maker_bps == 0.0


def test_what_is_not_stored_must_give_every_field():
    with pytest.raises(SpecError) as error:
        parse(Grown, stored())
    assert str(error.value).splitlines() == [
        "fees.rebate.maker_bps: must be given (added since)",
        "fees.vip0.maker_bps: must be given (added since)",
        "nested: must be given (added since)",
        "seeds: must be given (added since)",
    ]


def test_a_field_without_a_value_of_before_is_named_in_stored_data():
    with pytest.raises(SpecError, match=r"^given: must be given \(added since\)$"):
        parse(Grown, good(), stored=True)


@pytest.fixture
def grown_rooms(rooms, tmp_path):
    """`time` bars and `ofi` have a field more, as in a later version."""
    for path, after in (
        ("bars/time.py", "shift of the grid, s"),
        ("features/flow.py", "rolling window, bars"),
    ):
        file = tmp_path / "shop" / path
        head, found, tail = file.read_text().partition(f'description="{after}")\n')
        line = '    lag: int = Field(ge=0, description="x", json_schema_extra={"before": 3})\n'
        file.write_text(head + found + line + tail)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("grown_rooms")
def test_kinds_of_rooms_and_sets_get_them_too():
    plain = good(bars={"kind": "time", "size": 60, "offset": 0})
    config = parse(Config, plain, stored=True)
    assert (config.bars.lag, config.features["ofi"].lag) == (3, 3)
    assert not hasattr(config.features["book"], "lag")
    with pytest.raises(SpecError) as error:
        parse(Config, plain)
    assert str(error.value).splitlines() == [
        "bars.lag: must be given (x)",
        "features.ofi.lag: must be given (x)",
    ]


@pytest.mark.usefixtures("grown_rooms")
def test_a_set_of_one_kind_gets_them_too():
    features = {
        "ofi": {"kind": "ofi", "window": 10},
        "ofi_5": {"kind": "ofi", "window": 5, "lag": 0},
    }
    config = parse(Config, good(features=features), stored=True)
    assert [feature.lag for feature in config.features.values()] == [3, 0]


@pytest.mark.parametrize("bars", [None, 5, [], {"kind": "tiem"}, {"kind": ["time"]}, {}])
def test_stored_nonsense_is_refused_like_any_other(bars):
    with pytest.raises(SpecError, match=r"^bars"):
        parse(Config, good(bars=bars), stored=True)


def test_stored_data_are_left_as_they_were():
    plain = stored()
    parse(Grown, plain, stored=True)
    assert plain == stored()


# Constructed by hand


def test_a_spec_constructed_by_hand_knows_its_kind():
    dollar = Room("shop.bars").load("dollar")
    assert dollar(size=1e6) == dollar(kind="dollar", size=1e6)
    assert dollar(size=1e6).plain() == {"kind": "dollar", "size": 1e6}
    with pytest.raises(ValidationError, match="Input should be 'dollar'"):
        dollar(kind="time", size=1e6)


def test_nothing_else_has_a_default():
    dollar = Room("shop.bars").load("dollar")
    with pytest.raises(ValidationError, match="size\n  Field required"):
        dollar()
    with pytest.raises(ValidationError, match="kind\n  Field required"):
        Kind()  # of no kind


def test_data_have_to_name_their_kind():
    dollar = Room("shop.bars").load("dollar")
    for read in (dollar.model_validate, lambda data: dollar.model_validate_json(json.dumps(data))):
        with pytest.raises(ValidationError, match="kind\n  Field required"):
            read({"size": 1e6})
        assert read({"kind": "dollar", "size": 1e6}) == dollar(size=1e6)
    assert dollar.model_json_schema()["required"] == ["kind", "size"]
    assert "default" not in str(dollar.model_json_schema())


# What changes numbers


class Source(Kind):
    kind: Literal["files"]
    path: Annotated[str, Role.PLACE]
    start: Annotated[str, Role.EXTENT]
    gap_s: float


class Told(Spec):
    bars: Annotated[Kind, Room("shop.bars")]
    features: Annotated[dict[str, Kind], Room("shop.features", families=True)]
    source: Source
    sources: dict[str, Source]
    tags: Annotated[tuple[str, ...], Role.SHOWN]
    paths: Annotated[Paths, Role.PLACE] = Field(description="where all is kept")
    seed: int


@pytest.fixture
def told(rooms, tmp_path):
    """A plain config, and of two kinds a field with a role."""
    for path, role in (("bars/dollar.py", "SHOWN"), ("features/flow.py", "PLACE")):
        file = tmp_path / "shop" / path
        head = "from typing import Annotated\nfrom hft.spec import Role\n"
        line = f"    note: Annotated[str, Role.{role}]\n"
        text = file.read_text()
        at = text.index("    kind: Literal")
        file.write_text(head + text[:at] + line + text[at:])
    importlib.invalidate_caches()
    source = {"kind": "files", "path": "/a", "start": "1", "gap_s": 2.0}
    return {
        "bars": {"kind": "dollar", "size": 1.0, "note": "x"},
        "features": {"a": {"kind": "ofi", "window": 3, "note": "y"}, "b": {"kind": "unheard"}},
        "source": source,
        "sources": {"one": source},
        "tags": ["t"],
        "paths": {"runs": "r"},
        "seed": 3,
        "unknown": {"path": "stays"},
    }


def test_what_changes_numbers_is_what_no_role_excepts(told):
    source = {"kind": "files", "start": "1", "gap_s": 2.0}
    assert numbers_of(Told, told) == {
        "bars": {"kind": "dollar", "size": 1.0},
        "features": {"a": {"kind": "ofi", "window": 3}, "b": {"kind": "unheard"}},
        "source": source,
        "sources": {"one": source},
        "seed": 3,
        "unknown": {"path": "stays"},
    }
    day = numbers_of(Source, told["source"], without=tuple(Role))
    assert day == {"kind": "files", "gap_s": 2.0}


def test_every_role_stands_at_its_path(told):
    del told["bars"]["note"]  # a field that the data lack has its role all the same
    assert roles_of(Told, told) == {
        "bars.note": Role.SHOWN,
        "features.a.note": Role.PLACE,
        "source.path": Role.PLACE,
        "source.start": Role.EXTENT,
        "sources.one.path": Role.PLACE,
        "sources.one.start": Role.EXTENT,
        "tags": Role.SHOWN,
        "paths": Role.PLACE,
    }


def test_a_role_leaves_parsing_and_schema_alone():
    plain = {"kind": "files", "path": 1, "start": "1", "gap_s": 2.0}
    with pytest.raises(SpecError, match=r"^path: must be a valid string, got 1$"):
        parse(Source, plain)
    assert "role" not in str(Source.model_json_schema()).lower()
