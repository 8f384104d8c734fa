"""collective: op, n_ranks, bytes, and in the published tables dtype, kind (nccl, custom_allreduce), backend, kernel.

`bytes` is the full buffer as nccl-tests counts it: what all_gather ends with, what reduce_scatter starts from. Tables
of HCCL count one rank's piece for these two. They have no column that says so; what tells them is the machine: rows
of an NPU are HCCL's and count pieces, unless `kind` is "nccl".
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from tensorcast.cost.collective import EAGER, collective_time
from tensorcast.cost.tables import Table
from tensorcast.errors import InputError
from tensorcast.hardware.protocol import OPS

PIECES = ("all_gather", "reduce_scatter")
LIBRARIES = (
    ("*nccl*", ""),
    ("*hccl*", ""),
    ("*vllm*eager*", f"vllm{EAGER}"),
    ("*vllm*", "vllm"),
    ("*sglang*eager*", f"sglang{EAGER}"),
    ("*sglang*", "sglang"),
    ("*trtllm*", "trtllm"),
)
"""(pattern on "kind:backend:kernel" in small letters, library of the curve); "" = the device's default one."""


def library_of(kind: str = "", backend: str = "", kernel: str = "") -> str:
    """The library whose curve prices rows of that origin. A custom kernel that nobody names is vLLM's."""
    label = f"{kind}:{backend}:{kernel}".lower()
    found = next((library for pattern, library in LIBRARIES if fnmatchcase(label, pattern)), "")
    return found or ("vllm" if kind.startswith("custom") else "")


def libraries(frame) -> np.ndarray:
    """The library of every row."""
    columns = [frame[c].astype("object").fillna("") if c in frame else None for c in ("kind", "backend", "kernel")]
    codes, labels = _codes([c for c in columns if c is not None], len(frame))
    names = []
    for label in labels:
        values = iter(label)
        names.append(library_of(*(str(next(values)) if c is not None else "" for c in columns)))
    return np.array(names, dtype=object)[codes]


def full_bytes(frame, hw) -> np.ndarray:
    """Bytes of the full buffer of every row, whatever the table counts."""
    nbytes = frame["bytes"].to_numpy(dtype=float)
    if hw.kind != "npu":
        return nbytes
    pieces = frame["op"].isin(PIECES).to_numpy()
    if "kind" in frame:
        pieces = pieces & ~frame["kind"].eq("nccl").fillna(False).to_numpy(dtype=bool)
    return nbytes * np.where(pieces, frame["n_ranks"].to_numpy(dtype=float), 1.0)


def seconds(frame, hw) -> np.ndarray:
    """Seconds of every row, neighbours side by side. A library without a curve on the machine is its default one."""
    nbytes, ranks = full_bytes(frame, hw), frame["n_ranks"].to_numpy(dtype=np.int64)
    library = libraries(frame)
    codes, labels = _codes([frame["op"].astype("object"), library], len(frame))
    result = np.empty(len(frame))
    for code, (op, name) in enumerate(labels):
        if op not in OPS:
            raise InputError(f"collective: unknown op {op!r}; one of {', '.join(OPS)}")
        rows = np.flatnonzero(codes == code)
        curve = name if f"{op}/{name}" in hw.collective else ""
        result[rows] = collective_time(op, nbytes[rows], ranks[rows], 1, hw, library=curve)
    return result


def _codes(columns: list, rows: int) -> tuple[np.ndarray, list[tuple]]:
    """(number of the combination of every row, the combinations)."""
    import pandas as pd

    codes, labels = np.zeros(rows, dtype=np.int64), [()]
    for column in columns:
        own, values = pd.factorize(column)
        codes = codes * len(values) + own
        labels = [(*label, value) for label in labels for value in values]
    return codes, labels


TABLES = {"collective": Table("collective", ("op", "n_ranks", "bytes"), seconds=seconds)}
