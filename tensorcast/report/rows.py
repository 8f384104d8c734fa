"""Rows of a sweep as files, table after table: CSV and JSON, SI units, every digit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa

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


def _cells(column: pa.Array) -> list[Any]:
    cells = column.to_pylist()
    return (
        [None if cell is None else str(cell).lower() for cell in cells] if pa.types.is_boolean(column.type) else cells
    )
