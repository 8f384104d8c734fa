"""Tables of measured kernels: what their columns mean, which coefficients price a row, how the rows were taken.

A table holds one kernel call a row, in SI units, with the measured `latency_s`. Groups of rows with the same format and
kernel are priced with one set of coefficients. `tensorcast measure` writes such tables, `calibrate` fits them,
`accuracy` scores them, `tensorcast.cost.predict` prices them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.errors import InputError, UnknownNameError

GROUP = ("op", "phase", "dtype", "kv_dtype", "kind", "mode", "backend", "kernel", "cache_state")
"""Columns that, where a table has them, tell kernels and protocols apart."""

FORMATS = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "fp8_e4m3": "fp8", "sq": "int8",
    "int8(dynamic sq)": "int8", "int8(w8a8)": "int8", "w8a8_dynamic": "int8",
}  # fmt: skip
"""Spellings of formats in published tables → ours."""


@dataclass(frozen=True)
class Table:
    """One kind of table.

    columns: those it must have beside `latency_s`; those of numbers are positive, or at least 0 in `optional_zero`.
    family: that of the coefficients. format(group) → the format they are kept under; `group` maps GROUP's columns to
    the values the rows share. call(frame, group) → the call behind the rows, as their benchmark loop made it.
    formula: the one that a calibration fits. kernels: (pattern on "backend:kernel", kernel of the coefficients).
    keep: rows worth fitting and scoring. seconds: takes the place of all these for what is no single kernel. families:
    see `family_of`.
    """

    name: str
    columns: tuple[str, ...]
    family: str = ""
    format: Callable[[Mapping[str, str]], str] | None = None
    call: Callable[..., Call] | None = None
    formula: str = ""
    kernels: tuple[tuple[str, str], ...] = ()
    keep: Callable[[Any], Any] | None = None
    seconds: Callable[..., np.ndarray] | None = None
    optional_zero: tuple[str, ...] = ()
    families: Callable[[Mapping[str, str]], str] | None = None

    def family_of(self, group: Mapping[str, str]) -> str:
        """The family that the group's coefficients are kept under: `family`, or by group where `families` tells."""
        return self.families(group) if self.families is not None else self.family

    def kernel(self, group: Mapping[str, str]) -> str:
        """The name that the group's coefficients are kept under."""
        label = f"{group.get('backend', '')}:{group.get('kernel', '')}"
        for pattern, name in self.kernels:
            if fnmatchcase(label, pattern):
                return name
        return group.get("kernel", "")


MODULES = {
    "gemm": "gemm", "bmm": "gemm", "quantize": "memory",
    "attention_prefill": "attention", "attention_decode": "decode", "attention_encoder": "attention",
    "mla_prefill": "mla_prefill", "mla_decode": "mla_decode",
    "mla_module_prefill": "mla_module", "mla_module_decode": "mla_module",
    "moe": "moe", "moe_all_to_all_deepep": "all_to_all", "collective": "collective", "linear_attention": "scan",
    "memory": "elementwise",
}  # fmt: skip
"""Table → the module of tensorcast.cost.measured that describes it."""


def table(name: str) -> Table:
    """The table of that name; UnknownNameError."""
    if name not in MODULES:
        raise UnknownNameError("family of kernels", name, MODULES, f"known: {', '.join(MODULES)}")
    return importlib.import_module(f"tensorcast.cost.measured.{MODULES[name]}").TABLES[name]


def group_columns(frame) -> list[str]:
    return [name for name in GROUP if name in frame.columns]


def groups(frame):
    """(values of GROUP's columns, row positions) of every group, in order of appearance."""
    columns = group_columns(frame)
    if not columns:
        yield {}, np.arange(len(frame))
        return
    keys = frame[columns].astype("string").fillna("")
    for values, rows in keys.groupby(columns, sort=False, dropna=False).indices.items():
        values = values if isinstance(values, tuple) else (values,)
        yield dict(zip(columns, (str(v) for v in values), strict=True)), rows


def ours(fmt: str) -> str:
    """Our name of a table's format."""
    return FORMATS.get(fmt, fmt)


def sizes(frame, *names: str) -> list[np.ndarray]:
    """Columns as float arrays."""
    return [frame[name].to_numpy(dtype=float, na_value=np.nan) for name in names]


def check_frame(kind: Table, frame, *, measured: bool = False, where: str = "") -> None:
    """InputError for missing columns, no rows, sizes that are none, or (`measured`) latencies that are none."""
    prefix = f"{where}: " if where else ""
    needed = (*kind.columns, "latency_s") if measured else kind.columns
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(f"{prefix}{kind.name} table has no column {', '.join(missing)}; it needs {', '.join(needed)}")
    if not len(frame):
        raise InputError(f"{prefix}{kind.name} table has no rows")
    for name in needed:
        values = frame[name]
        if name in GROUP or (values.dtype.kind not in "iufb" and not _numeric(values)):
            if name not in GROUP and name not in ("model", "arch", "gemm_dtype", "distribution", "family", "gated"):
                raise InputError(f"{prefix}{kind.name}: column {name} must hold numbers")
            continue
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        low = 0 if name in kind.optional_zero else np.nextafter(0, 1)
        if not (np.isfinite(numbers) & (numbers >= low)).all():
            row = int(np.argmin(np.isfinite(numbers) & (numbers >= low)))
            raise InputError(f"{prefix}{kind.name}: {name} is {numbers[row]:g} in row {row}; it must be positive")


def _numeric(values) -> bool:
    from pandas.api.types import is_numeric_dtype

    return is_numeric_dtype(values)
