"""Rows and nested facts as text, for the `list`, `show` and `cache` verbs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorcast.units import bandwidth, bytes_, flops

UNITS = {"_bytes": bytes_, "_bw": bandwidth, "_flops": flops}
"""Ending of a column's name → how its figures are shown in a table; facts keep every digit."""


def plain_row(row: Any) -> dict[str, Any]:
    """A row as a dict, from a mapping or a dataclass."""
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return dataclasses.asdict(row)
    return dict(row)


def shown(value: Any) -> str:
    """One cell: nothing for None, yes or no, whole numbers with every digit, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) >= 1e5):
        return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(shown(item) for item in value)
    return " ".join(str(value).split())


def cell(column: str, value: Any) -> str:
    """A value under its column; figures whose column names a unit are shown as people read them."""
    form = next((form for ending, form in UNITS.items() if column.endswith(ending)), None)
    return form(value) if form and isinstance(value, (int, float)) else shown(value)


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None, margin: str = "") -> None:
    """A table with one line per row: aligned on a terminal or in a pipe, never wrapped, so that grep and cut work."""
    rows = list(rows)
    names = list(columns) if columns else list(dict.fromkeys(name for row in rows for name in row))
    numeric = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]
    titles = [_title(name) for name in names]
    cells = [titles] + [[cell(name, row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    for line in cells:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True))
        sys.stdout.write(f"{margin}{'  '.join(padded)}".rstrip() + "\n")


def _title(column: str) -> str:
    """`memory_bytes` → memory: the cells tell the unit."""
    return column.removesuffix("_bytes").removesuffix("_flops").replace("_bw", " bandwidth").replace("_", " ")


def print_facts(facts: Mapping[str, Any], indent: int = 0) -> None:
    """A nested mapping, one fact a line, a figure with its source on one too; lists of mappings as tables."""
    margin = "  " * indent
    for name, value in facts.items():
        if isinstance(value, Mapping) and set(value) == {"value", "status", "source"}:
            sys.stdout.write(f"{margin}{name}: {shown(value['value'])} ({value['status']}: {value['source']})\n")
        elif isinstance(value, Mapping):
            sys.stdout.write(f"{margin}{name}:\n")
            print_facts(value, indent + 1)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
            sys.stdout.write(f"{margin}{name}:\n")
            print_rows(value, margin=f"{margin}  ")
        else:
            sys.stdout.write(f"{margin}{name}: {shown(value)}".rstrip() + "\n")
