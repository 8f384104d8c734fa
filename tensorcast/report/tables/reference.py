"""docs/columns.md: every key and column of a result, made of the schemas and tables themselves.

`python -m tensorcast.report.tables.reference docs/columns.md` writes it anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorcast.report.markdown import escaped, grid
from tensorcast.report.tables import TABLES
from tensorcast.report.tables.schema import SCHEMAS, Schema, value

HEAD = """# Keys and columns

Of the files that docs/reports.md tells of. Made by `python -m tensorcast.report.tables.reference docs/columns.md`; a
test says when that is due. SI units, per device where nothing else is said. `a.b` is key b in object a, `[]` each of a
list, `*` a name of the model's or the machine's. A `?` follows what may be missing or null.
"""


def reference() -> str:
    """Every key of the JSON of each verb, and every column of the tables of a report."""
    lines = [HEAD]
    for verb, schema in SCHEMAS.items():
        lines += [f"## JSON of `{verb}`", "", *_objects(schema)]
    lines += ["## Tables of a report", ""]
    for name, kind in TABLES.items():
        rows = [
            (each.name if each.always else f"{each.name}?", _unit(value(each)), each.meaning) for each in kind.columns
        ]
        lines += [f"`{name}`: {escaped(kind.title)}", "", *_table("column", rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _objects(schema: Schema) -> Iterator[str]:
    """A table for each object; one that is like another before says so."""
    seen: dict[str, str] = {}
    for path, each in _walk(schema, ""):
        said = f"`{path}`: {escaped(each['description'])}" if path else escaped(each["description"])
        first = seen.setdefault(json.dumps(each["properties"]), path)
        if first != path:
            yield from (f"`{path}`: as `{first}`", "")
            continue
        rows = [
            (name if _always(each, name) else f"{name}?", _unit(part), part["description"])
            for name, part in each["properties"].items()
        ]
        yield from (said, "", *_table("key", rows), "")


def _walk(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Schema]]:
    """(path, schema) of the objects with keys of ours; * stands for a name, [] for each of a list."""
    if "properties" in schema:
        yield path, dict(schema)
    for name, part in schema.get("properties", {}).items():
        yield from _walk(part, f"{path}.{name}" if path else name)
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _walk(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from _walk(schema["items"], f"{path}[]")


def _always(schema: Schema, name: str) -> bool:
    return name in schema["required"] and "null" not in schema["properties"][name].get("type", ())


def _unit(part: Mapping[str, Any]) -> str:
    """The unit, or what else stands there."""
    kinds = {"string": "text", "boolean": "true or false", "array": "list", "integer": "count"}
    names = part.get("type", [])
    first = names if isinstance(names, str) else next(iter(names), "")
    return part.get("x-unit") or kinds.get(first, first)


def _table(first: str, rows: list[tuple[str, str, str]]) -> list[str]:
    return grid((first, "unit", "meaning"), rows, (False, False, False))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), "utf-8")
