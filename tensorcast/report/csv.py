"""Comma-separated values: one row per phase and operator."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

OP_COLUMNS = (
    "op", "module", "count", "time_s", "bound", "matrix_flops", "vector_flops", "read_bytes", "write_bytes",
    "comm_bytes",
)  # fmt: skip


def to_csv(estimate: Mapping[str, Any]) -> str:
    """A header and one row per phase and operator; columns are the JSON's, after `phase`. SI units, no thousands mark.

    A figure that is not finite is an empty cell. Lines end in one newline.
    """
    rows = [(phase, op) for phase, content in estimate["phases"].items() for op in content["ops"]]
    # A column the JSON gains appears here too, after the fixed ones.
    extra = dict.fromkeys(name for _, op in rows for name in op if name not in OP_COLUMNS)
    columns = (*OP_COLUMNS, *extra)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("phase", *columns))
    writer.writerows((phase, *(_cell(op.get(column)) for column in columns)) for phase, op in rows)
    return text.getvalue()


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line a row; what is nested becomes columns such as `decode_tp`. SI units, every digit."""
    rows = [_flat(row) for row in rows]
    columns = [*dict.fromkeys(name for row in rows for name in row)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        parts = {f"{name}_{key}": each for key, each in _flat(value).items()} if isinstance(value, Mapping) else {}
        found |= parts or {name: value}
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return "" if value is None else value
