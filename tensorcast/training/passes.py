"""The table of one micro-batch: the traced forward pass, what is run again, and the backward pass, in that order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tensorcast.errors import InputError
from tensorcast.ops.backward import SUFFIX, gradient_of
from tensorcast.optable import OpTable, Piece, Row

FORWARD, AGAIN, BACKWARD = "forward", "recompute", "backward"


def train_table(table: OpTable, checkpoint: str) -> OpTable:
    """All passes of a micro-batch from the forward pass's table; `checkpoint` none or full (layers are run again).

    InputError for an operator without a described gradient. Rows say in the attribute `part` what they belong to.
    """
    return replace(table, pieces=tuple(_passes(piece, checkpoint) for piece in table.pieces))


def _passes(piece: Piece, checkpoint: str) -> Piece:
    rows = [part(row, FORWARD) for row in piece.rows]
    if checkpoint == "full":
        again = [part(row, AGAIN) for row in piece.rows if not row.place]
        if not again:
            raise InputError("--grad-checkpoint full: no stack of equal layers was found in this model; use none")
        rows += again
    return replace(piece, rows=(*rows, *_backwards(piece)))


def _backwards(piece: Piece) -> Iterator[Row]:
    for row in reversed(piece.rows):
        found = gradient_of(row.op)
        if found is None:
            where = f" ({row.module})" if row.module else ""
            raise InputError(f"--phase train: no gradient is described for operator {row.op}{where}")
        if found.flows:
            yield part(replace(row, op=row.op + SUFFIX), BACKWARD)


def part(row: Row, name: str) -> Row:
    """The row, as belonging to a part of the training step."""
    return replace(row, attrs={**row.attrs, "part": name})
