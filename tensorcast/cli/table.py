"""Rows and nested facts as text, for the `list`, `show` and `cache` verbs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(shown(item) for item in value)
    return " ".join(str(value).split())


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table with one line per row: aligned on a terminal or in a pipe, never wrapped, so that grep and cut work."""
    rows = list(rows)
    names = list(columns) if columns else list(dict.fromkeys(name for row in rows for name in row))
    numeric = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]
    cells = [[name.replace("_", " ") for name in names]] + [[shown(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    for line in cells:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def print_facts(facts: Mapping[str, Any], indent: int = 0) -> None:
    """A nested mapping, one fact a line; long lists of mappings are indented below their name."""
    margin = "  " * indent
    for name, value in facts.items():
        if isinstance(value, Mapping):
            sys.stdout.write(f"{margin}{name}:\n")
            print_facts(value, indent + 1)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            sys.stdout.write(f"{margin}{name}:\n")
            for item in value:
                if isinstance(item, Mapping):
                    sys.stdout.write(f"{margin}  -\n")
                    print_facts(item, indent + 2)
                else:
                    sys.stdout.write(f"{margin}  - {shown(item)}\n")
        else:
            text = str(value) if isinstance(value, float) else shown(value)
            sys.stdout.write(f"{margin}{name}: {text}".rstrip() + "\n")
