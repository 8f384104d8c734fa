"""Bytes in use beside weights and caches: the activations alive and the scratch memory of the operators."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from tensorcast.cost.passes import Steps
from tensorcast.ops import operator_named
from tensorcast.optable import OpTable, Piece

BLOCK = 8192  # points at a time, each of which takes a number a row


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

    def at(self, batch, tokens, past) -> tuple[np.ndarray, np.ndarray]:
        """(activation peak, workspace) at each point: most bytes in use at any moment."""
        points = np.broadcast_arrays(*map(np.atleast_1d, (batch, tokens, past)))
        peak, workspace = np.zeros(len(points[0])), np.zeros(len(points[0]))
        for start in range(0, len(peak), BLOCK):
            part = slice(start, start + BLOCK)
            basis = self.piece.basis(*(column[part] for column in points))
            # Not `@`: for sizes like these BLAS only keeps its threads spinning beside the other processes.
            peak[part] = np.max(np.einsum("rm,mn->rn", self._memory, basis), axis=0, initial=0.0)
            for row in self._scratch:
                workspace[part] = np.maximum(workspace[part], _workspace(row, basis))
        return peak, workspace


class Footprints:
    """Footprints of several tables."""

    def __init__(self, tables: dict[str, OpTable]) -> None:
        self.tables = tables
        self._known: dict[int, Footprint] = {}

    def of(self, parts: Iterable[tuple[str, Steps]]) -> tuple[float, float] | None:
        """(activation peak, workspace) over all passes, or None where a table has no piece for one of them."""
        found = np.zeros((2, 1))
        for name, steps in parts:
            # Both grow with new tokens and with the cache: the last two passes (the last may be a part-filled chunk).
            tokens, past = np.array(steps.tokens[-2:]), np.array(steps.past[-2:])
            here = self.at(name, np.full_like(tokens, steps.batch), tokens, past)
            found = np.concatenate([found, here], axis=1)
        peak, workspace = found.max(axis=1)
        return None if np.isnan(peak) else (float(peak), float(workspace))

    def at(self, name: str, batch: np.ndarray, tokens: np.ndarray, past: np.ndarray) -> np.ndarray:
        """[(activation peak, workspace), points] by the table `name`; NaN where it has no piece."""
        found = np.full((2, len(batch)), np.nan)
        left = np.ones(len(batch), dtype=bool)
        for piece in self.tables[name].pieces if name in self.tables else ():
            here = left & piece.covers_all(batch, tokens, past)
            if here.any():
                footprint = self._known.setdefault(id(piece), Footprint(piece))
                found[:, here] = footprint.at(batch[here], tokens[here], past[here])
                left &= ~here
        return found


def _workspace(row, basis: np.ndarray) -> np.ndarray:
    dims = {name: np.asarray(c) @ basis for name, c in row.dims.items()}
    return np.asarray(operator_named(row.op).work(dims, row.attrs).workspace_bytes)
