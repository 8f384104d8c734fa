"""Where the figures of a machine come from: calibrated, inherited, universal or assumed, per family of operators in use."""

from __future__ import annotations

from collections.abc import Iterable

from tensorcast.cost.pricing import coefficient_key
from tensorcast.hardware.coefficient import KINDS
from tensorcast.optable import OpTable


def provenance(hw, tables: Iterable[OpTable]) -> dict[str, str]:
    """Kind (calibrated, inherited, universal, assumed) → the kernel families and formats priced with such figures."""
    kinds: dict[str, list[str]] = {}
    for family, fmt in _keys(tables):
        label = family if fmt == "any" else f"{family} ({fmt})"
        kinds.setdefault(hw.coefficient(family, fmt).kind, []).append(label)
    return {kind: ", ".join(kinds[kind]) for kind in KINDS if kind in kinds}


def assumed(hw, tables: Iterable[OpTable]) -> list[str]:
    """Families without a measurement on this machine or a relative, and assumed fields of the profile."""
    names = [f"{family} ({fmt})" for family, fmt in _keys(tables) if hw.coefficient(family, fmt).kind == "assumed"]
    return names + [name for name, source in hw.sources.items() if source.status == "assumed"]


def _keys(tables: Iterable[OpTable]) -> list[tuple[str, str]]:
    rows = (row for table in tables for piece in table.pieces for row in piece.rows)
    return list(dict.fromkeys(key for row in rows if (key := coefficient_key(row)) is not None))
