"""Folders of measured tables: DIR/<family>.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tensorcast.cost.tables import MODULES, Table, check_frame, table
from tensorcast.errors import InputError, UnknownNameError
from tensorcast.hardware.load import hardware
from tensorcast.hardware.profile import HardwareProfile

HELD_OUT = 20  # of 100 shapes are kept out of every fit


def tables_in(folder: str | Path) -> list[tuple[str, Path]]:
    """(family, file) of every table in `folder`; InputError where there is none."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder of measured tables")
    found = [(name, root / f"{name}.parquet") for name in MODULES if (root / f"{name}.parquet").is_file()]
    if not found:
        raise InputError(f"{folder}: holds no table; expected <family>.parquet, families: {', '.join(MODULES)}")
    return found


def read_table(family: str, path: str | Path):
    """(Table, frame) of one file, checked, without the rows that are known to be wrong."""
    import pandas as pd

    kind = table(family)
    try:
        frame = pd.read_parquet(path)
    except Exception as cause:  # pyarrow has a class of its own for every way a file can be broken
        raise InputError(f"{path}: cannot be read as Parquet ({str(cause).splitlines()[0]})") from None
    check_frame(kind, frame, measured=True, where=str(path))
    bad = np.zeros(len(frame), dtype=bool)
    for flag in ("suspect", "ep_artefact"):
        if flag in frame.columns:
            bad |= frame[flag].fillna(False).to_numpy(dtype=bool)
    frame = frame[~bad]
    if kind.keep is not None:
        frame = frame[kind.keep(frame)]
    return kind, frame.reset_index(drop=True)


def by_device(frame, only: HardwareProfile | None = None) -> Iterator[tuple[HardwareProfile, object]]:
    """(machine, its rows): the machine each `device` names, or `only` it. A table without that column is `only`'s."""
    if "device" not in frame.columns:
        if only is None:
            raise InputError("the table has no column device: say which machine it is with --hw")
        yield only, frame
        return
    for name, rows in frame.groupby("device", sort=False):
        try:
            hw = hardware(str(name))
        except UnknownNameError as unknown:
            raise InputError(f"the table's device {unknown}") from None
        if only is None or hw.name == only.name:
            yield hw, rows


def held_out(kind: Table, frame) -> np.ndarray:
    """Which rows a fit must not see: a fixed fifth of the shapes, the same for all kernels and devices."""
    from pandas.util import hash_pandas_object

    if "split_hash" in frame.columns:
        values = frame["split_hash"].to_numpy()
        return values < np.quantile(np.unique(values), HELD_OUT / 100)
    columns = [c for c in kind.columns if c in frame.columns and frame[c].dtype.kind in "iuf"]
    return (hash_pandas_object(frame[columns].astype(float), index=False) % 100 < HELD_OUT).to_numpy()
