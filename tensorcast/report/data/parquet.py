"""Tables of a report as Parquet: typed columns, with the unit and the meaning of each in its field's metadata."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tensorcast.report.data.csv import table_csv
from tensorcast.report.data.json import dumps, strict
from tensorcast.report.tables import Row, tables
from tensorcast.report.tables.columns import ANY, NUMBER, NUMBERS, OPERATOR, PHASE, TEXT, TEXTS, TRUTH, WHOLE, Column

TYPES = {
    TEXT: pa.string(), WHOLE: pa.int64(), NUMBER: pa.float64(), TRUTH: pa.bool_(),
    NUMBERS: pa.list_(pa.float64()), TEXTS: pa.list_(pa.string()), ANY: pa.string(),
}  # fmt: skip
HEADER = "tensorcast"
"""Metadata of a file: the JSON of what its rows do not say."""
FILE_TIME = (1980, 1, 1, 0, 0, 0)  # of a zip's members, so that equal results are equal files


def to_parquet(estimate: Mapping[str, Any]) -> bytes:
    """The rows of `to_csv` as a Parquet file; its metadata `tensorcast` is the JSON without operators and timelines."""
    rows = ({"phase": name, **op} for name, phase in estimate["phases"].items() for op in phase["ops"])
    inside = ("ops", "timeline")
    phases = {
        name: {key: value for key, value in phase.items() if key not in inside}
        for name, phase in estimate["phases"].items()
    }
    return _file(_table((PHASE, *OPERATOR), rows, {**estimate, "phases": phases}))


def to_tables(estimate: Mapping[str, Any]) -> bytes:
    """A zip of every table of the report, NAME.csv and NAME.parquet, and the whole result as report.json."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, table in tables(estimate).items():
            _add(archive, f"{name}.csv", table_csv(table))
            _add(archive, f"{name}.parquet", _file(_table(table.columns, table.rows)))
        _add(archive, "report.json", dumps(estimate))
    return packed.getvalue()


def field(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning})


def _table(columns: Iterable[Column], rows: Iterable[Row], header: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows in typed columns; what is missing or not finite is null."""
    fields = [field(column.name, TYPES[column.type], column.unit, column.meaning) for column in columns]
    metadata = None if header is None else {HEADER: json.dumps(strict(header), allow_nan=False)}
    return pa.Table.from_pylist([strict(row) for row in rows], pa.schema(fields, metadata))


def _file(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, compression="zstd")
    return made.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, FILE_TIME), content, zipfile.ZIP_DEFLATED)
