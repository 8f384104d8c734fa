"""Where the figures of a machine come from, per family of operators in use, and how far off they are."""

from __future__ import annotations

from collections.abc import Iterable

from tensorcast.cost.pricing import coefficient_keys
from tensorcast.hardware.coefficient import KINDS, Coefficient
from tensorcast.optable import OpTable


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


def _label(c: Coefficient) -> str:
    what = " ".join(part for part in (c.format if c.format != "any" else "", c.kernel) if part)
    error = f" ±{c.error[0]:.0f} %" if c.error else ""
    return f"{c.family}{f' ({what})' if what else ''}{error}"


def _in_use(hw, tables: Iterable[OpTable]) -> list[Coefficient]:
    rows = (row for table in tables for piece in table.pieces for row in piece.rows)
    keys = dict.fromkeys(key for row in rows for key in coefficient_keys(row))
    return [hw.coefficient(*key) for key in keys]
