"""Tables of a model whose experts are not equally popular: the same rows, with the skew their prices need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorcast.cost import routing
from tensorcast.errors import InputError
from tensorcast.optable import OpTable, Piece, Row

EXPERTS, EXCHANGES = ("moe_experts", "moe_exchanged_experts"), ("moe_dispatch", "moe_combine")
LOOP = "moe_experts_loop"


def skewed_tables(tables: Mapping[str, OpTable], alpha: float | None) -> dict[str, OpTable]:
    """The tables with attrs `skew` on experts and exchanges; as they are where `alpha` is None.

    skew: alpha of the power law, experts, groups of ranks whose tokens meet, ep.
    """
    if alpha is None:
        return dict(tables)
    return {
        name: replace(table, pieces=tuple(_skewed_piece(piece, alpha) for piece in table.pieces))
        for name, table in tables.items()
    }


def _skewed_piece(piece: Piece, alpha: float) -> Piece:
    if looped := next((row for row in piece.rows if row.op == LOOP), None):
        raise InputError(f"--moe-imbalance: {looped.module} runs its experts one by one; use moe_experts=grouped")
    layers = [row for row in piece.rows if row.op in EXPERTS]
    if not layers:
        return piece
    at = {row.module: row for row in layers}

    def skewed(row: Row) -> Row:
        if row.op not in (*EXPERTS, *EXCHANGES):
            return row
        attrs = at.get(row.module, layers[0]).attrs  # an exchange belongs to the experts of its module
        skew = {"alpha": alpha, **{name: attrs[name] for name in ("experts", "groups", "ep")}}
        return replace(row, attrs={**row.attrs, "skew": skew})

    return replace(piece, rows=tuple(skewed(row) for row in piece.rows))


def exchange_factor(dims, attrs: Mapping[str, Any]):
    """How many times the mean the busiest rank receives or sends; 1 for equally popular experts.

    Where a token goes to every rank in any case, no rank can get more of them.
    """
    skew = attrs.get("skew")
    if skew is None or attrs["size"] // attrs["copies"] <= attrs["top_k"]:
        return 1.0
    tokens = np.maximum(np.ceil(np.atleast_1d(np.asarray(dims["tokens"], dtype=float)) * skew["groups"]), 1.0)
    busiest = routing.power_law(tokens, attrs["top_k"], skew["experts"], skew["ep"], (), skew["alpha"]).pairs
    return np.maximum(busiest / (tokens * attrs["top_k"] / skew["ep"]), 1.0)
