"""Rows and nested facts as text, for the `list`, `show` and `cache` verbs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.text import Text

from tensorcast.report.terminal import printed
from tensorcast.report.terminal.lines import crop_left, crop_right, facts, wrapped
from tensorcast.units import bandwidth, bytes_, flops

UNITS = {"_bytes": bytes_, "_bw": bandwidth, "_flops": flops}
"""Ending of a column's name → how its figures are shown in a table; facts keep every digit."""
GAP, SHORTEST = "  ", 20
END_TELLS = ("origin", "source", "file")
"""Columns of which the end is kept where they are shortened: the name of a file."""
NO_COLUMNS: Mapping[str, Sequence[str]] = MappingProxyType({})


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


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table with one line per row, so that grep and cut work; the first column is always whole."""
    rows = list(rows)
    printed(lambda width, _: row_lines(rows, columns, width))


def row_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None, width: int) -> list[Text]:
    """A line a row of at most `width` characters: the columns, most important first, that there is room for.

    Where that is not all of them, what is the same in every row is said once, and what is left out is named.
    """
    names = list(columns) if columns else list(dict.fromkeys(name for row in rows for name in row))
    grid = {name: [_title(name), *(cell(name, row.get(name)) for row in rows)] for name in names}
    wide = {name: max(map(len, cells)) for name, cells in grid.items()}
    same: list[str] = []
    if _sum(wide.values()) > width and len(rows) > 1:
        same = [name for name in names[1:] if len(set(grid[name][1:])) == 1]
    fitted = _fitted({name: size for name, size in wide.items() if name not in same}, names[0], width)
    numeric = {name: all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in fitted}
    lines = []
    for at in range(len(rows) + 1):
        cells = ((_cropped(name, grid[name][at], size), size, numeric[name]) for name, size in fitted.items())
        lines.append(Text(GAP.join(text.rjust(size) if right else text.ljust(size) for text, size, right in cells)))
        lines[-1].rstrip()
    lines[0].stylize("dim")
    lines += facts("all have", [f"{_title(name)} {grid[name][1]}" for name in same if grid[name][1]], width)
    left = [_title(name) for name in names if name not in fitted and name not in same]
    return lines + facts("not shown", [*left, "--json has them"] if left else [], width)


def _fitted(wide: Mapping[str, int], key: str, width: int) -> dict[str, int]:
    """Column → its size: those that fit in their order, long texts as short as `SHORTEST`, but for the key."""
    fitted: dict[str, int] = {}
    for name, size in wide.items():
        least = size if name == key else min(size, SHORTEST)
        if name != key and _sum((*fitted.values(), least)) > width:
            break
        fitted[name] = least
    for name in fitted:
        fitted[name] = min(wide[name], fitted[name] + max(0, width - _sum(fitted.values())))
    return fitted


def _cropped(column: str, text: str, size: int) -> str:
    return crop_left(text, size) if column in END_TELLS else crop_right(text, size)


def _sum(sizes: Iterable[int]) -> int:
    """Characters of a line with cells of these sizes."""
    sizes = list(sizes)
    return sum(sizes) + len(GAP) * (len(sizes) - 1)


def _title(column: str) -> str:
    """`memory_bytes` → memory: the cells tell the unit."""
    return column.replace("memory_bw", "bandwidth").removesuffix("_bytes").removesuffix("_flops").replace("_", " ")


def print_facts(content: Mapping[str, Any], columns: Mapping[str, Sequence[str]] = NO_COLUMNS) -> None:
    """A nested mapping, one fact a line, a figure with its source on one too; lists of mappings as tables.

    `columns`: name of a list → the columns of its table, most important first; otherwise all.
    """
    printed(lambda width, _: list(fact_lines(content, columns, width)))


def fact_lines(content: Mapping[str, Any], columns: Mapping[str, Sequence[str]], width: int) -> Iterator[Text]:
    """The same as lines of at most `width` characters; what is longer goes on below, further to the right."""
    for name, value in content.items():
        if isinstance(value, Mapping) and set(value) == {"value", "status", "source"}:
            yield from wrapped(f"{name}: {shown(value['value'])} ({value['status']}: {value['source']})", width)
        elif isinstance(value, Mapping):
            yield Text(f"{name}:")
            yield from _indented(fact_lines(value, columns, width - 2))
        elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
            yield Text(f"{name}:")
            yield from _indented(row_lines(value, columns.get(name), width - 2))
        else:
            yield from wrapped(f"{name}: {shown(value)}", width)


def _indented(lines: Iterable[Text]) -> Iterator[Text]:
    return (Text("  ") + line for line in lines)
