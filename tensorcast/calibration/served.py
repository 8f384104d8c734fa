"""Score predictions of served models against measured ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tensorcast.calibration.data import SERVING, is_device, read_parquet
from tensorcast.calibration.report import Progress, Served
from tensorcast.errors import InputError

COLUMNS = ("device", "model", "mode", "isl", "osl", "ttft_s", "tpot_s")


def score_serving(path: Path, hw: str | None, only, notes: list[str], progress: Progress | None) -> list[Served]:
    """Scores of a table of served models, per machine and mode; rows with a suspected queue are left out."""
    frame = _read(path)
    if "queueing_suspect" in frame.columns:
        doubtful = frame["queueing_suspect"].fillna(False).to_numpy(dtype=bool)
        frame = frame[~doubtful]
        if doubtful.any():
            notes.append(f"{SERVING}: {doubtful.sum()} rows left out whose first token waited in a queue")
    if only is not None:
        mine = [is_device(str(name), only) for name in frame["device"]]
        frame = frame[mine].assign(device=hw)
    if not len(frame):
        return []
    predict = _predictor()
    if predict is None:
        notes.append(f"{SERVING}: not scored; this version does not predict served models")
        return []
    if progress:
        progress("serving models", None)
    frame = frame.reset_index(drop=True)
    told = predict(frame)
    answered = told[["ttft_s", "tpot_s"]].notna().all(axis=1).to_numpy()
    for reason, rows in told.loc[~answered, "reason"].value_counts().head(3).items():
        notes.append(f"{SERVING}: {rows} rows without an answer: {reason}")
    served = []
    for (device, mode), rows in frame.groupby(["device", "mode"], sort=False):
        at = rows.index[answered[rows.index]]
        ratios = {
            name: (told.loc[at, name] / frame.loc[at, name]).to_numpy(dtype=float) for name in ("tpot_s", "ttft_s")
        }
        name = only.name if only is not None else str(device)
        served.append(Served(name, str(mode), len(rows), ratios["tpot_s"], ratios["ttft_s"]))
    return served


def _read(path: Path):
    frame = read_parquet(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    if not len(frame):
        raise InputError(f"{path}: has no rows")
    for name in ("ttft_s", "tpot_s"):
        if frame[name].dtype.kind not in "iuf":
            raise InputError(f"{path}: column {name} must hold numbers")
        values = frame[name].to_numpy(dtype=float, na_value=np.nan)
        good = np.isfinite(values) & (values > 0)
        if not good.all():
            row = int(np.argmin(good))
            raise InputError(f"{path}: {name} is {values[row]:g} in row {row}; it must be positive")
    return frame


def _predictor():
    import tensorcast

    return getattr(tensorcast, "predict_serving", None)
