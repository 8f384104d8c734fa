"""Folders of measured tables: DIR/<family>.parquet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from tensorcast.calibration.fit import FEWEST
from tensorcast.cost.tables import MODULES, Table, check_frame, table
from tensorcast.errors import InputError, UnknownNameError
from tensorcast.hardware.load import hardware, normalize
from tensorcast.hardware.profile import HardwareProfile

HELD_OUT = 20  # of 100 shapes are kept out of every fit
COLLECTIVE = "collective"  # the table whose curves have a calibration of their own
SERVING = "e2e"  # the table of served models, which is scored beside those of kernels


def tables_in(folder: str | Path, families: Collection[str] = (), *, or_none: bool = False) -> list[tuple[str, Path]]:
    """(family, file) of every kernel table in `folder`, or of `families` alone; InputError where there is none."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder of measured tables")
    for name in families:
        if name not in MODULES:
            raise UnknownNameError("family of kernels", name, MODULES, f"known: {', '.join(MODULES)}")
        if not (root / f"{name}.parquet").is_file():
            raise InputError(f"{folder}: holds no table {name}.parquet; it has {_content(root) or 'none'}")
    found = [(name, root / f"{name}.parquet") for name in families or MODULES if (root / f"{name}.parquet").is_file()]
    if not found and not or_none:
        raise InputError(f"{folder}: holds no table; expected <family>.parquet, families: {', '.join(MODULES)}")
    return found


def _content(root: Path) -> str:
    return ", ".join(name for name in MODULES if (root / f"{name}.parquet").is_file())


def read_table(family: str, path: str | Path):
    """(Table, frame) of one file, checked, without the rows that are known to be wrong."""
    kind = table(family)
    frame = read_parquet(path)
    check_frame(kind, frame, measured=True, where=str(path))
    bad = np.zeros(len(frame), dtype=bool)
    for flag in ("suspect", "ep_artefact"):
        if flag in frame.columns:
            bad |= frame[flag].fillna(False).to_numpy(dtype=bool)
    frame = frame[~bad]
    if kind.keep is not None:
        frame = frame[kind.keep(frame)]
    if not len(frame):
        raise InputError(f"{path}: every row is marked as suspect or unusable")
    return kind, frame.reset_index(drop=True)


def read_parquet(path: str | Path):
    """The file as a frame; InputError for whatever is no Parquet."""
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except Exception as cause:  # pyarrow has a class of its own for every way a file can be broken
        raise InputError(f"{path}: cannot be read as Parquet ({(str(cause).splitlines() or ['empty'])[0]})") from None


def by_device(frame, only: HardwareProfile | None = None) -> Iterator[tuple[HardwareProfile, object]]:
    """(machine, its rows): the machine each `device` names, or `only` it. A table without that column is `only`'s.

    Without `only`, a device nobody knows is an InputError; with it, rows of other devices are passed over.
    """
    if "device" not in frame.columns:
        if only is None:
            raise InputError("the table has no column device: say which machine it is with --hw")
        yield only, frame
        return
    for name, rows in frame.groupby("device", sort=False, dropna=False):
        if only is not None:
            if is_device(str(name), only):
                yield only, rows
            continue
        try:
            hw = hardware(str(name))
        except UnknownNameError as unknown:
            raise InputError(f"the table's device {unknown}; --hw names the file of a machine of your own") from None
        yield hw, rows


def is_device(name: str, hw: HardwareProfile) -> bool:
    """Whether a table's device is that machine, by its name, one of its aliases, or the profile the name leads to."""
    if normalize(name) in {normalize(known) for known in (hw.name, *hw.aliases)}:
        return True
    try:
        return hardware(name).name == hw.name
    except UnknownNameError:
        return False


def held_out(kind: Table, frame) -> np.ndarray:
    """Which rows of a kernel a fit must not see: a fixed fifth of the shapes, the same for all kernels and devices.

    Where that leaves a small table too little to fit, or nothing to check, it is the fifth that comes first in the
    order of the shapes' hashes instead.
    """
    from pandas.util import hash_pandas_object

    if "split_hash" in frame.columns:
        values = frame["split_hash"].to_numpy()
        return _first_fifth(values)
    columns = [c for c in kind.columns if c in frame.columns and frame[c].dtype.kind in "iuf"]
    hashes = hash_pandas_object(frame[columns].astype(float), index=False).to_numpy()
    out = hashes % 100 < HELD_OUT
    return out if out.any() and (~out).sum() >= FEWEST else _first_fifth(hashes)


def _first_fifth(values: np.ndarray) -> np.ndarray:
    distinct = np.unique(values)
    return values < distinct[int(np.ceil((len(distinct) - 1) * HELD_OUT / 100))]
