"""Comma-separated values: one row per phase and operator."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorcast.report.tables import Table
from tensorcast.report.tables.columns import OPERATOR

OP_COLUMNS = tuple(column.name for column in OPERATOR if column.always)


def to_csv(estimate: Mapping[str, Any]) -> str:
    """A header and one row per phase and operator; columns are the JSON's, after `phase`. SI units, no thousands mark.

    A figure that is not finite is an empty cell. Lines end in one newline.
    """
    rows = [(phase, op) for phase, content in estimate["phases"].items() for op in content["ops"]]
    # A column the JSON gains appears here too, after the fixed ones.
    extra = dict.fromkeys(name for _, op in rows for name in op if name not in OP_COLUMNS)
    columns = (*OP_COLUMNS, *extra)
    return _text(("phase", *columns), ({"phase": phase, **op} for phase, op in rows))


def table_csv(table: Table) -> str:
    """A header and a line a row, in the order of the table's columns."""
    return _text([column.name for column in table.columns], table.rows)


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line a row; what is nested becomes columns such as `decode_tp`. SI units, every digit."""
    rows = [flat(row) for row in rows]
    return _text([*dict.fromkeys(name for row in rows for name in row)], rows)


def _text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what is nested as columns of their own.

    >>> flat({"ratio": "1:2", "decode": {"tp": 8}})
    {'ratio': '1:2', 'decode_tp': 8}
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        parts = {f"{name}_{key}": each for key, each in flat(value).items()} if isinstance(value, Mapping) else {}
        found |= parts or {name: value}
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else value
