"""Where the figures of a machine come from: measured, inherited or assumed, per family of operators in use."""

from __future__ import annotations

from collections.abc import Iterable

from tensorcast.ops import operator_named
from tensorcast.optable import OpTable


def families(tables: Iterable[OpTable]) -> list[str]:
    """Coefficient families that the tables' operators are priced with."""
    found: dict[str, None] = {}
    for table in tables:
        for piece in table.pieces:
            for row in piece.rows:
                if row.op == "aten::?":
                    found["elementwise"] = None
                    continue
                family = operator_named(row.op).family
                if family in ("attention", "mla"):
                    family = f"{family}_{row.attrs['phase']}"
                if family not in ("none", "collective"):
                    found[family] = None
    return list(found)


def provenance(hw, tables: Iterable[OpTable]) -> dict[str, str]:
    """Kind (measured, inherited, assumed) → families, as one line each."""
    kinds: dict[str, list[str]] = {}
    for family in families(tables):
        kinds.setdefault(hw.coefficient(family).kind, []).append(family)
    return {kind: ", ".join(names) for kind, names in kinds.items()}


def assumed(hw, tables: Iterable[OpTable]) -> list[str]:
    """Families without a measurement on this machine or a relative, and assumed fields of the profile."""
    names = [family for family in families(tables) if hw.coefficient(family).kind == "assumed"]
    return names + [name for name, source in hw.sources.items() if source.status == "assumed"]
