"""Comma-separated values: one row per phase and operator."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
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


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return "" if value is None else value
