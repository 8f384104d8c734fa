"""Bytes in use beside weights and caches: the activations alive and the scratch memory of the operators."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from tensorcast.cost.phase import Steps
from tensorcast.ops import operator_named
from tensorcast.optable import OpTable, Piece


class Footprint:
    """The footprint of one piece of a table, quick to ask at many sizes."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece

    @cached_property
    def _memory(self) -> np.ndarray:
        """[two moments a row, monomials]"""
        return np.array([c for row in self.piece.rows for c in row.memory])

    @cached_property
    def _scratch(self) -> list:
        """The rows whose operator uses scratch memory anywhere, by a look at one size."""
        basis = self.piece.basis(2, 64, 64)
        return [row for row in self.piece.rows if np.any(_workspace(row, basis))]

    def at(self, batch: int, tokens, past) -> tuple[float, float]:
        """(activation peak, workspace): most bytes in use at any moment of any of the passes."""
        basis = self.piece.basis(batch, tokens, past)
        workspace = max((float(np.max(_workspace(row, basis))) for row in self._scratch), default=0.0)
        return float(np.max(self._memory @ basis, initial=0.0)), workspace


class Footprints:
    """Footprints of several tables."""

    def __init__(self, tables: dict[str, OpTable]) -> None:
        self.tables = tables
        self._known: dict[int, Footprint] = {}

    def of(self, parts: Iterable[tuple[str, Steps]]) -> tuple[float, float] | None:
        """(activation peak, workspace) over all passes, or None where a table has no piece for one of them."""
        activations, workspace = 0.0, 0.0
        for name, steps in parts:
            # Both grow with new tokens and with the cache: the last two passes (the last may be a part-filled chunk).
            for point in zip(steps.tokens[-2:], steps.past[-2:], strict=True):
                piece = self.tables[name].piece_for(steps.batch, *point)
                if piece is None:
                    return None
                footprint = self._known.setdefault(id(piece), Footprint(piece))
                a, w = footprint.at(steps.batch, *point)
                activations, workspace = max(activations, a), max(workspace, w)
        return activations, workspace


def _workspace(row, basis: np.ndarray) -> np.ndarray:
    dims = {name: np.asarray(c) @ basis for name, c in row.dims.items()}
    return np.asarray(operator_named(row.op).work(dims, row.attrs).workspace_bytes)
