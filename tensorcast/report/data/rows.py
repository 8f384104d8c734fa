"""Rows of searches as files, those of a sweep table after table: CSV, JSON, Parquet; SI units, every digit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tensorcast.report.data.csv import flat, rows_csv
from tensorcast.report.data.json import strict
from tensorcast.report.data.parquet import HEADER, TYPES, field
from tensorcast.report.tables.columns import row_column
from tensorcast.search.frame import said

if TYPE_CHECKING:
    from tensorcast.search.comparison.compare import Comparison
    from tensorcast.search.optimization.optimum import Optimum

FEW = 4096  # rows that are Python objects at a time


class CsvRows:
    """A header and a line a row. Null is an empty cell, a truth value true or false; lines end in one newline."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._text = stream, io.StringIO()
        self._writer, self._columns = csv.writer(self._text, lineterminator="\n"), None

    def add(self, table: pa.Table) -> None:
        if self._columns is None:
            self._columns = table.column_names
            self._writer.writerow(self._columns)
        for batch in table.to_batches(max_chunksize=FEW):
            columns = [_cells(column) for column in batch.columns]
            self._writer.writerows(zip(*columns, strict=True))
            self._flush()

    def close(self, _: Mapping[str, Any]) -> None:
        self._flush()

    def _flush(self) -> None:
        self._stream.write(self._text.getvalue().encode("utf-8"))
        self._text.seek(0)
        self._text.truncate()


class JsonRows:
    """{"schema": 1, "rows": [{column: value}, …], and what `close` is given}; null where there is no value."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._before = stream, '{"schema": 1, "rows": ['

    def add(self, table: pa.Table) -> None:
        for batch in table.to_batches(max_chunksize=FEW):
            for row in batch.to_pylist():
                self._write(f"{self._before}\n{json.dumps(row, allow_nan=False)}")
                self._before = ","

    def close(self, more: Mapping[str, Any]) -> None:
        ending = "".join(f",\n{json.dumps(name)}: {json.dumps(value)}" for name, value in more.items())
        self._write(f"{self._before if self._before != ',' else ''}\n]{ending}}}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8"))


class _Writer(pq.ParquetWriter):
    def __del__(self) -> None:
        """Nothing: what was given up on has no file to end any more."""


class ParquetRows:
    """One Parquet file, a row group a table; what `close` is given is the JSON in its metadata `tensorcast`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._writer = stream, None

    def add(self, table: pa.Table) -> None:
        table = described(table)
        if self._writer is None:
            self._writer = _Writer(self._stream, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self, more: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.add_key_value_metadata({HEADER: json.dumps({"schema": 1, **strict(more)})})
            self._writer.close()


def described(table: pa.Table) -> pa.Table:
    """The table with the unit and the meaning of each column in its field's metadata."""
    columns = ((each, row_column(each.name)) for each in table.schema)
    fields = [field(each.name, each.type, column.unit, column.meaning) for each, column in columns]
    return pa.table(table.columns, schema=pa.schema(fields))


def optimum_csv(found: Optimum) -> str:
    """A line a plan that was priced, the best first."""
    return rows_csv([row.to_dict() for row in found.rows])


def optimum_parquet(found: Optimum) -> bytes:
    """The rows of `optimum_csv`; the metadata has the rest of the JSON."""
    rows = [{name: _one(value) for name, value in flat(row.to_dict()).items()} for row in found.rows]
    columns = [row_column(name) for name in dict.fromkeys(name for row in rows for name in row)]
    schema = pa.schema([field(each.name, TYPES[each.type], each.unit, each.meaning) for each in columns])
    return _whole(ParquetRows, pa.Table.from_pylist(rows, schema), found.to_dict())


def comparison_csv(found: Comparison) -> str:
    """A line an alternative and point of the curve; InputError where there is no curve."""
    return _whole(CsvRows, _points(found), {}).decode("utf-8")


def comparison_parquet(found: Comparison) -> bytes:
    """The rows of `comparison_csv`; the metadata has the JSON."""
    return _whole(ParquetRows, _points(found), found.to_dict())


def _points(found: Comparison) -> pa.Table:
    return pa.Table.from_pandas(found.frame, preserve_index=False)


def _whole(kind: type, table: pa.Table, more: Mapping[str, Any]) -> bytes:
    made = io.BytesIO()
    rows = kind(made)
    rows.add(table)
    rows.close(more)
    return made.getvalue()


def _one(value: Any) -> Any:
    """A value of one cell: lists and mappings as text."""
    return said(value) if isinstance(value, (list, tuple, Mapping)) else value


def _cells(column: pa.Array) -> list[Any]:
    cells = column.to_pylist()
    return (
        [None if cell is None else str(cell).lower() for cell in cells] if pa.types.is_boolean(column.type) else cells
    )
