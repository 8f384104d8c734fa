"""A table that grows: rows already measured are known, new ones are added, the file is whole at any time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorcast.calibration.data import read_parquet
from tensorcast.errors import InputError

EVERY = 5.0  # seconds between two writes


class Store:
    """DIR/<table>.parquet. `key`: the columns that tell one measurement from another."""

    def __init__(self, folder: Path, table: str, key: Sequence[str]) -> None:
        self.path, self.key = folder / f"{table}.parquet", tuple(key)
        self._old = read_parquet(self.path) if self.path.exists() else None
        self._new: list[dict[str, Any]] = []
        self._saved = time.monotonic()
        missing = [name for name in self.key if self._old is not None and name not in self._old.columns]
        if missing:
            raise InputError(f"{self.path}: is no table of `tensorcast measure`: no column {', '.join(missing)}")
        rows = [] if self._old is None else self._old[list(self.key)].astype(str).itertuples(index=False, name=None)
        self._known = set(rows)

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return tuple(str(row[name]) for name in self.key) in self._known

    def add(self, row: Mapping[str, Any]) -> None:
        self._new.append({name: value for name, value in row.items() if value is not None})
        self._known.add(tuple(str(row[name]) for name in self.key))
        if time.monotonic() - self._saved > EVERY:
            self.save()

    def save(self) -> None:
        """Write what is new, the file whole or not at all."""
        if not self._new:
            return
        import pandas as pd

        parts = [part for part in (self._old, pd.DataFrame(self._new)) if part is not None]
        self._old, self._new = pd.concat(parts, ignore_index=True), []
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
        os.close(handle)
        try:
            self._old.to_parquet(name, compression="zstd", index=False)
            os.chmod(name, 0o644)
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._saved = time.monotonic()
