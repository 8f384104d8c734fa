"""A cache of a diffusion transformer: steps whose blocks are left out, their result taken from the last full step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tensorcast.errors import DeploymentError, InputError
from tensorcast.ops.base import item_bytes
from tensorcast.optable import OpTable, Piece, Row
from tensorcast.plan import DIT_CACHE

ATTENTION, KEPT = "attention", "dit_cache"
"""Operator that tells how many tokens a block has, and the module that adding the kept result belongs to."""


@dataclass(frozen=True)
class Schedule:
    """Which steps run in full, and which blocks the others leave out.

    Of n steps, step i (from 0) runs in full when i < `first`, when i >= n - `last`, or when i - first + 1 is a multiple
    of `every`; any other step leaves out the blocks `skip` (start, end), counted through all lists of blocks in order,
    None = all to the end. What is left runs: embeddings, the blocks that are not skipped, the last projection, and one
    addition of the kept result: what the skipped blocks changed about every token [tokens, width], of image and text
    where the blocks join them. It stays in memory, once for each prediction of a step.
    """

    every: int
    first: int = 1
    last: int = 0
    skip: tuple[int, int | None] = (0, None)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """
        >>> Schedule.parse("every=3,first=4,skip=1:50")
        Schedule(every=3, first=4, last=0, skip=(1, 50))
        """
        given: dict[str, object] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name not in ("every", "first", "last", "skip") or not equals or name in given:
                raise InputError(f"--dit-cache {text!r}: every=N and, where wanted, first, last and skip: {DIT_CACHE}")
            given[name] = _blocks(text, value) if name == "skip" else _number(text, name, value)
        if "every" not in given:
            raise InputError(f"--dit-cache {text!r}: every is missing, the steps from one full step to the next")
        return cls(**given)

    def full(self, step: int, steps: int) -> bool:
        return step < self.first or step >= steps - self.last or (step - self.first + 1) % self.every == 0

    def full_steps(self, steps: int) -> int:
        """How many of `steps` run in full.

        >>> Schedule(3, first=4).full_steps(28), Schedule(2).full_steps(28)
        (12, 14)
        """
        return sum(self.full(step, steps) for step in range(steps))


def _number(text: str, name: str, value: str) -> int:
    least = {"every": 2, "first": 1, "last": 0}[name]
    if not (value.isascii() and value.isdigit() and int(value) >= least):
        raise InputError(f"--dit-cache {text!r}: {name} must be a whole number of at least {least}")
    return int(value)


def _blocks(text: str, value: str) -> tuple[int, int | None]:
    start, colon, end = (piece.strip() for piece in value.partition(":"))
    whole = all(not piece or (piece.isascii() and piece.isdigit()) for piece in (start, end))
    if not colon or not whole or (end and int(end) <= int(start or 0)):
        raise InputError(f"--dit-cache {text!r}: skip takes the first block left out and the one behind the last: 1:50")
    return int(start or 0), int(end) if end else None


def cached_table(table: OpTable, schedule: Schedule, name: str, ranks: int = 1) -> OpTable:
    """The table of a step that takes the skipped blocks' result from the last full step.

    `ranks`: devices that hold a part of every head's work each, and the tokens of their part whole (--tp).
    """
    return replace(table, pieces=tuple(replace(p, rows=_rows(p, schedule, name, ranks)) for p in table.pieces))


def kept_bytes(table: OpTable, point: tuple[int, int, int]) -> float:
    """Bytes of the kept result at (batch, tokens, past) of a `cached_table`; 0 where the table does not reach."""
    piece = table.piece_for(*point)
    if piece is None:
        return 0.0
    row = next(row for row in piece.rows if row.module == KEPT)
    return float(np.dot(row.dims["elements"], piece.basis(*point))[0]) * item_bytes(row.attrs["format"])


def _rows(piece: Piece, schedule: Schedule, name: str, ranks: int) -> tuple[Row, ...]:
    offsets = _block_lists(piece.rows, name)
    start, end = schedule.skip
    blocks = offsets.pop("")
    if start >= blocks or (end or 0) > blocks:
        raise DeploymentError(f"--dit-cache skip={start}:{end or ''}: {name} has {blocks} blocks")
    end = blocks if end is None else end
    out, left = [], []
    for row in piece.rows:
        if row.stack not in offsets:
            out.append(row)
            continue
        layers = tuple(n for n in row.layers if not start <= offsets[row.stack] + n < end)
        if layers:
            out.append(replace(row, layers=layers, count=row.count * len(layers) // len(row.layers)))
        if len(layers) < len(row.layers):
            left.append(row)
    return (*out, _addition(piece, left, name, ranks))


def _addition(piece: Piece, skipped: list[Row], name: str, ranks: int) -> Row:
    """Adding the kept result: as large as the queries of the attention that sees most tokens, in all heads."""
    sizes = [_product(piece, [row.dims[d] for d in ("b", "q", "heads", "d")]) for row in skipped if row.op == ATTENTION]
    if not sizes:
        raise DeploymentError(f"--dit-cache: {name} has no attention in its blocks that says how many tokens they have")
    elements = tuple(ranks * size for size in max(sizes, key=sum))
    fmt = next(row.attrs["out_format"] for row in skipped if row.op == ATTENTION)
    nothing = (0.0,) * len(piece.monomials)
    return Row("residual_add", KEPT, 1, {"elements": elements}, {"format": fmt}, (nothing, nothing), place="post")


def _product(piece: Piece, factors: list[tuple[float, ...]]) -> tuple[float, ...]:
    """The product of polynomials over the piece's monomials."""
    whole = {(0, 0, 0): 1.0}
    for factor in factors:
        terms: dict[tuple[int, ...], float] = {}
        for mine, value in whole.items():
            for other, more in zip(piece.monomials, factor, strict=True):
                key = tuple(a + b for a, b in zip(mine, other, strict=True))
                terms[key] = terms.get(key, 0.0) + value * more
        whole = {key: value for key, value in terms.items() if value}
    return tuple(whole.get(monomial, 0.0) for monomial in piece.monomials)


def _block_lists(rows: tuple[Row, ...], name: str) -> Mapping[str, int]:
    """List of blocks → number of its first block; under "" how many blocks there are.

    Lists at the model's top count whose blocks are alike, so that most rows stand for several: what one block makes
    fits the next, and any may be left out. Those of a UNet change the size of the picture and hand results across.
    """
    depth: dict[str, int] = {}
    alike: dict[str, list[bool]] = {}
    for row in rows:
        if row.stack and "." not in row.stack:
            depth[row.stack] = max(depth.get(row.stack, 0), *(n + 1 for n in row.layers))
            alike.setdefault(row.stack, []).append(len(row.layers) > 1)
    depth = {stack: size for stack, size in depth.items() if sum(alike[stack]) * 2 > len(alike[stack])}
    if not depth:
        raise DeploymentError(f"--dit-cache: {name} has no list of blocks that a step could leave out")
    offsets, total = {}, 0
    for stack, size in depth.items():
        offsets[stack], total = total, total + size
    return {**offsets, "": total}
