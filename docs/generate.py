"""Writes the pages that the code decides: `python -m docs.generate`. A test compares.

In: specs, YAML, column contracts, imports. Out: docs/configuration.md, docs/columns.md, and what
stands between the markers of docs/design.md. To add a page: a function that returns its text, and a
line in `pages`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import polars as pl
from pydantic.fields import FieldInfo

from docs import columns_text as text
from hft import schema
from hft.config.configs import BacktestConfig, Paths, TrainConfig
from hft.config.groups import SETS, read_groups
from hft.metrics import ALL
from hft.report.scorecard import ScheduleScore, Scorecard
from hft.search.settings import SweepConfig
from hft.spec import Kind, Role, Room, Spec, room_of
from hft.system.conf import CONF, read_yaml
from hft.trading.fees import FeeSchedule

DOCS = Path(__file__).parent
HFT = DOCS.parent / "hft"
BEGIN, END = "<!-- imports: python -m docs.generate -->\n", "<!-- imports end -->\n"
ROLES = {None: "number", Role.PLACE: "place", Role.SHOWN: "shown", Role.EXTENT: "extent"}
RUN_KEYS = (
    ("resume", '""', "the run to go on with: its id, or latest"),
    ("reproduce", '""', "the run to repeat and compare with: its id, or latest"),
)


def pages() -> dict[Path, str]:
    """Every generated page with the text that it should have."""
    design = DOCS / "design.md"
    return {
        DOCS / "configuration.md": configuration(),
        DOCS / "columns.md": columns(),
        design: with_imports(design.read_text()),
    }


def main() -> None:
    for path, content in pages().items():
        path.write_text(content)


# Configuration


def configuration() -> str:
    groups = read_groups(CONF)
    parts = [text.CONFIGURATION, *_root("train", TrainConfig), *_root("backtest", BacktestConfig)]
    for name, field in {**TrainConfig.model_fields, **SweepConfig.model_fields}.items():
        room = room_of(field)
        role = "-" if name == "launcher" else ROLES[_role_of(field)]
        if room is not None:
            parts += _group(name, room, groups[name], role="" if role == "number" else role)
        elif name == "fees":
            parts += _fees()
        elif name == "paths":
            rows = _rows(Paths, read_yaml(CONF / "paths/default.yaml"), role=role)
            parts += ["## paths", "", *_table(rows)]
    parts += [*_overlays("experiment"), *_overlays("debug")]
    return "\n".join(parts).rstrip() + "\n"


def _root(entry: str, config: type[Spec]) -> Iterator[str]:
    body = read_yaml(CONF / f"{entry}.yaml")
    choices = {k: v for item in body["defaults"] if isinstance(item, dict) for k, v in item.items()}
    yield from (f"## {entry}: settings without a group", "")
    plain = {n: f for n, f in config.model_fields.items() if n not in choices}
    rows = _rows(config, body, only=set(plain) - {"experiment"})
    rows += [(n, "text", "", d, "", what) for n, d, what in RUN_KEYS if entry == "train"]
    yield from _table(rows)
    chosen = [(k, v) for k, v in choices.items() if "/" not in k]
    said = [f"`{k}={json.dumps(v) if isinstance(v, list) else v or 'null'}`" for k, v in chosen]
    yield _wrapped(f"Shipped choices: {', '.join(said)}.".replace('"', ""))
    yield ""


def _group(
    name: str, room: Room, files: Mapping[str, Mapping[str, Any]], *, role: str
) -> Iterator[str]:
    yield from (f"## {name}", "")
    package = importlib.import_module(room.module)
    yield from (_wrapped(_first_paragraph(package.__doc__)), "")
    if room.families:
        yield from _families(room, files)
        return
    specs = room.specs()
    bodies = {kind: _body_of(name, kind, files) for kind in specs}
    shared = _shared(list(specs.values()))
    if shared and len(specs) > 1:
        yield from ("Every kind has these:", "")
        any_spec = next(iter(specs.values()))
        rows = _rows(any_spec, {}, only=shared, role=role)
        yield from _table(rows, defaults=[_default_of(bodies, field) for field in rows])
    for kind, spec in specs.items():
        module = importlib.import_module(spec.__module__)
        yield from (f"### `{name}={kind}`", "", _wrapped(_first_paragraph(module.__doc__)), "")
        own = set(spec.model_fields) - (shared if len(specs) > 1 else set()) - {"kind"}
        if own:
            yield from _table(_rows(spec, bodies[kind], only=own, role=role))


def _families(room: Room, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from ("Kinds of columns:", "", "| kind | what | fields |", "|---|---|---|")
    for kind, spec in sorted(room.specs().items(), key=lambda item: (item[1].__module__, item[0])):
        fields = [
            f"`{path}`: {_cell(kind_, range_)}; {_cell(what)}"
            for path, kind_, range_, _, _, what in _rows(spec, {}, only=set(spec.model_fields))
            if path != "kind"
        ]
        yield f"| `{kind}` | {_cell(_first_paragraph(spec.__doc__))} | {'<br>'.join(fields)} |"
    yield from ("", "Columns of the shipped sets:", "", "| column | definition | sets |")
    yield "|---|---|---|"
    columns: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for set_name, body in files.items():
        for column, definition in body.items():
            columns.setdefault(column, (definition, []))[1].append(set_name)
    for column, (definition, sets) in columns.items():
        shown = ", ".join(f"{k}: {_json(v)}" for k, v in definition.items())
        yield f"| `{column}` | {_cell(shown)} | {', '.join(sets)} |"
    yield ""


def _fees() -> Iterator[str]:
    yield from ("## fees", "", text.FEES, "", *_table(_rows(FeeSchedule, {}), defaults=["", ""]))
    yield from ("| schedule | maker | taker | file |", "|---|---|---|---|")
    for path in sorted((CONF / "fees").glob("*.yaml")):
        for name, fee in read_yaml(path).items():
            if isinstance(fee, dict):
                yield f"| `{name}` | {fee['maker_bps']:g} | {fee['taker_bps']:g} | {path.stem} |"
    yield ""


def _overlays(group: str) -> Iterator[str]:
    yield from (f"## {group}", "", text.OVERLAYS[group], "", "| name | what |", "|---|---|")
    for path in sorted((CONF / group).glob("*.yaml")):
        lines = path.read_text().splitlines()
        said = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
        shown = " ".join(line for line in said if not line.startswith("@package"))
        yield f"| `{group}={path.stem}` | {_cell(shown)} |"
    yield ""


Row = tuple[str, str, str, str, str, str]  # path, type, range, default, role, description


def _rows(
    spec: type[Spec],
    body: Mapping[str, Any],
    *,
    only: set[str] | None = None,
    above: str = "",
    role: str = "",
) -> list[Row]:
    schema_of = spec.model_json_schema()
    rows: list[Row] = []
    for name, field in spec.model_fields.items():
        if name == "kind" or (only is not None and name not in only):
            continue
        own_role = role or ROLES[_role_of(field)]
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Spec) and not issubclass(nested, Kind):
            within = body.get(name) if isinstance(body.get(name), dict) else {}
            what = field.description or ""
            if what:
                rows.append((f"{above}{name}", "mapping", "", "", own_role, what))
            rows += _rows(nested, within or {}, above=f"{above}{name}.", role=own_role)
            continue
        prop = schema_of["properties"][name]
        default = _json(body[name]) if name in body else ""
        kind, range_ = _type_of(prop, schema_of.get("$defs", {}))
        rows.append((f"{above}{name}", kind, range_, default, own_role, field.description or ""))
    return rows


def _role_of(field: FieldInfo) -> Role | None:
    return next((m for m in field.metadata if isinstance(m, Role)), None)


def _type_of(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[str, str]:
    """Type and range, in words, of a field's JSON Schema."""
    if "$ref" in prop:
        return _type_of(defs[prop["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in prop:
        parts = [_type_of(p, defs) for p in prop["anyOf"]]
        names = list(dict.fromkeys(f"{kind} {range_}".strip() for kind, range_ in parts))
        return " or ".join(names), ""
    if "enum" in prop:
        return "one of " + ", ".join(map(_json, prop["enum"])), ""
    if "const" in prop:
        return _json(prop["const"]), ""
    kinds = {"number": "number", "integer": "integer", "boolean": "true, false", "string": "text"}
    kind = kinds.get(prop.get("type", ""), prop.get("type", "any"))
    if prop.get("type") == "array":
        kind = f"list of {_type_of(prop.get('items') or _first_item(prop), defs)[0]}"
    if prop.get("type") == "object":
        kind = "mapping"
    return kind, ", ".join(_bounds(prop))


def _first_item(prop: Mapping[str, Any]) -> Mapping[str, Any]:
    return (prop.get("prefixItems") or [{}])[0]


def _bounds(prop: Mapping[str, Any]) -> Iterator[str]:
    signs = (
        ("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"),
    )  # fmt: skip
    yield from (f"{sign} {prop[key]:,}".replace(",", " ") for key, sign in signs if key in prop)
    if "pattern" in prop:
        yield f"`{prop['pattern']}`"
    if prop.get("minItems") or prop.get("minLength") or prop.get("minProperties"):
        yield "not empty"


def _table(rows: list[Row], *, defaults: list[str] | None = None) -> Iterator[str]:
    yield from ("| field | type | range | shipped | role | what |", "|---|---|---|---|---|---|")
    for i, (path, kind, range_, default, role, what) in enumerate(rows):
        shown = default if defaults is None else defaults[i]
        cells = [f"`{path}`", _cell(kind), _cell(range_), _code(shown), role, _cell(what)]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _shared(specs: list[type[Kind]]) -> set[str]:
    """Fields that all kinds of a room have, with the same meaning."""
    schemas = [spec.model_json_schema()["properties"] for spec in specs]
    return {
        name for name in schemas[0] if name != "kind"
        and all(other.get(name) == schemas[0][name] for other in schemas)
    }  # fmt: skip


def _body_of(group: str, kind: str, files: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The shipped numbers of a kind: its file, or in a set its first entry."""
    if group not in SETS:
        return files.get(kind, {})
    entries = [e for body in files.values() for e in body.values() if isinstance(e, dict)]
    return next((e for e in entries if e.get("kind") == kind), {})


def _default_of(bodies: Mapping[str, Mapping[str, Any]], row: Row) -> str:
    path, _, deeper = row[0].partition(".")
    values: dict[str, list[str]] = {}
    for kind, body in bodies.items():
        value = body.get(path, "")
        value = value.get(deeper, "") if deeper and isinstance(value, dict) else value
        values.setdefault("" if value == "" else _json(value), []).append(kind)
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value or '-'} ({', '.join(kinds)})" for value, kinds in values.items())


def _json(value: Any) -> str:
    if value == "???":
        return "required"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return "see the YAML" if len(shown) > 80 else shown


def _code(shown: str) -> str:
    return f"`{shown}`".replace("|", "\\|") if shown else ""


def _cell(*words: str) -> str:
    return " ".join(" ".join(w.split()) for w in words if w).replace("|", "\\|")


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


# Columns


def columns() -> str:
    parts = [text.COLUMNS]
    for title, where, contract in _frames():
        parts += [
            f"## {title}",
            "",
            _wrapped(where),
            "",
            "| column | type | what |",
            "|---|---|---|",
        ]
        parts += [f"| `{n}` | {_dtype(d)} | {text.COLUMN[title][n]} |" for n, d in contract.items()]
        parts.append("")
    parts += ["## metrics", "", text.METRICS, ""]
    parts += ["| metric | better | unit | one number in | curve in |", "|---|---|---|---|---|"]
    for metric in ALL:
        name = f"{metric.name}@<schedule>" if metric.by_schedule else metric.name
        places = [", ".join(p) for p in (metric.results, metric.curves)]
        parts.append(f"| `{name}` | {metric.better} | {metric.unit} | {' | '.join(places)} |")
    parts += ["", "## scorecard.json", "", text.SCORECARD, ""]
    for spec in (Scorecard, ScheduleScore):
        parts += [f"{text.CARDS[spec.__name__]}", "", "| key | type | what |", "|---|---|---|"]
        described = {**text.CARD, **_described(spec)}
        parts += [f"| `{n}` | {k} | {_cell(described[n])} |" for n, k in _keys(spec)]
        parts.append("")
    parts.append(text.FILES)
    return "\n".join(parts).rstrip() + "\n"


def _frames() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    contracts = {
        "TRADES": schema.TRADES,
        "QUOTES": schema.QUOTES,
        "BOOK": {n.replace("_0", "_k"): d for n, d in schema.book_columns(1).items()},
        "BARS": schema.BARS,
        "FEATURES": schema.features_columns(["<feature>"]),
        "LABELS": schema.LABELS,
        "PREDICTIONS": schema.PREDICTIONS,
        "LEDGER": schema.LEDGER,
        "DAILY": schema.daily_columns(["<schedule>"]),
    }
    for title, contract in contracts.items():
        yield title, text.FRAME[title], contract


def _dtype(dtype: type[pl.DataType]) -> str:
    return str(dtype().base_type()).lower()


def _described(spec: type[Spec]) -> dict[str, str]:
    return {n: f.description for n, f in spec.model_fields.items() if f.description}


def _keys(spec: type[Spec]) -> Iterator[tuple[str, str]]:
    schema_of = spec.model_json_schema()
    for name, field in spec.model_fields.items():
        is_map = get_origin(field.annotation) is dict
        prop = schema_of["properties"][name]
        yield name, "mapping" if is_map else _cell(_type_of(prop, schema_of.get("$defs", {}))[0])


# Imports


def with_imports(page: str) -> str:
    """`page` with the picture of imports between its markers as the code has them now."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + imports() + END + after


def imports() -> str:
    """A mermaid graph of wings, without arrows that follow from others, and a table of all."""
    reads = wing_imports()
    order = sorted(reads, key=lambda wing: (_depth(wing, reads), wing))
    lines = ["```mermaid", "flowchart BT"]
    for wing in order:
        below = _reach(reads[wing], reads)
        direct = sorted(other for other in reads[wing] if other not in below)
        lines += [f"  {wing} --> {other}" for other in direct]
    lines += ["```", "", "| wing | imports |", "|---|---|"]
    lines += [f"| `{wing}` | {', '.join(sorted(reads[wing])) or '-'} |" for wing in order]
    return "\n".join(lines) + "\n"


def wing_imports() -> dict[str, set[str]]:
    """wing -> the other wings that its modules name in an import, anywhere in their bodies."""
    reads: dict[str, set[str]] = {}
    for path in sorted(HFT.rglob("*.py")):
        wing = path.relative_to(HFT).parts[0].removesuffix(".py")
        if path.parent == HFT and wing not in text.ROOT_FACTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found = {name.split(".")[1] for name in names if name.startswith("hft.")}
            reads.setdefault(wing, set()).update(found - {wing})
    return reads


def _reach(wings: set[str], reads: Mapping[str, set[str]]) -> set[str]:
    """All that `wings` import, directly or not."""
    found: set[str] = set()
    todo = set(wings)
    while todo:
        new = set(reads.get(todo.pop(), ())) - found
        found |= new
        todo |= new
    return found


def _depth(wing: str, reads: Mapping[str, set[str]]) -> int:
    return 1 + max((_depth(other, reads) for other in reads.get(wing, ())), default=-1)


if __name__ == "__main__":
    main()
