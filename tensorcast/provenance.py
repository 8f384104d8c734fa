"""Where the figures of a machine come from, per family of operators in use, and how far off they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorcast.cost.described import collectives_of
from tensorcast.cost.pricing import coefficient_keys
from tensorcast.hardware.coefficient import KINDS, Coefficient
from tensorcast.optable import OpTable, Row


def provenance(hw, tables: Iterable[OpTable]) -> dict[str, str]:
    """Kind (calibrated, inherited, universal, assumed) → the families priced with such figures.

    Each with its format and kernel, and where it was measured the median error on shapes that the fit did not see; of
    an inherited row that is the error on the relative, of a universal one the worst on a device left out of the fit.
    """
    kinds: dict[str, list[str]] = {}
    for coefficient in _in_use(hw, tables):
        kinds.setdefault(coefficient.kind, []).append(_label(coefficient))
    return {kind: ", ".join(dict.fromkeys(kinds[kind])) for kind in KINDS if kind in kinds}


def assumed(hw, tables: Iterable[OpTable]) -> list[str]:
    """Families without any measurement, and assumed fields of the profile."""
    names = [f"{c.family} ({c.format})" for c in _in_use(hw, tables) if c.kind == "assumed"]
    return names + [name for name, source in hw.sources.items() if source.status == "assumed"]


def assumptions(hw, tables: Iterable[OpTable]) -> list[dict[str, Any]]:
    """Every figure of the machine that the answer rests on: what, how it is known, how far off, and its source.

    `error_percent`: median and 90th percentile on measurements that the fit did not see, None where nothing was
    measured; `rows`: measurements fitted.
    """
    tables = list(tables)
    kernels = [
        {"figure": _figure(c), "kind": c.kind, "error_percent": list(c.error) if c.error else None, "rows": c.rows}
        | {"source": c.provenance}
        for c in _in_use(hw, tables)
    ]
    used = dict.fromkeys(name for table in tables for row in _rows(table) for name in collectives_of(row))
    curves = {op: hw.collective[op] for op in used if op in hw.collective}
    unknown = {"error_percent": None, "rows": None}
    links = [{"figure": op, "kind": c.kind, **unknown, "source": c.provenance} for op, c in curves.items()]
    stated = [{"figure": f, "kind": s.status, **unknown, "source": s.text} for f, s in hw.sources.items()]
    return kernels + links + stated


def _figure(c: Coefficient) -> str:
    what = " ".join(part for part in (c.format if c.format != "any" else "", c.kernel) if part)
    return f"{c.family}{f' ({what})' if what else ''}"


def _label(c: Coefficient) -> str:
    return _figure(c) + (f" ±{c.error[0]:.0f} %" if c.error else "")


def _rows(table: OpTable) -> Iterable[Row]:
    return (row for piece in table.pieces for row in piece.rows)


def _in_use(hw, tables: Iterable[OpTable]) -> list[Coefficient]:
    rows = (row for table in tables for row in _rows(table))
    keys = dict.fromkeys(key for row in rows for key in coefficient_keys(row))
    return [hw.coefficient(*key) for key in keys]
