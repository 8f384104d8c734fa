"""The forward passes of a phase, which rows of its tables they run, and on which pipeline stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tensorcast.cost.time import Time
from tensorcast.ops.base import Work
from tensorcast.optable import OpTable, Piece, Row


@dataclass(frozen=True)
class Steps:
    """The forward passes of a phase: `batch` sequences a pass, and for each pass its new tokens and tokens in cache.

    `weight` of each pass in the phase's figures: 1 where they follow each other, 1/n for the mean of n. `lengths` makes
    the batch ragged: for every sequence its new tokens, and how many more tokens than `past` it has in cache. `cut`:
    the batch runs as two halves beside each other.
    """

    batch: int
    tokens: Sequence[int]
    past: Sequence[int]
    weight: float = 1.0
    lengths: tuple[tuple[int, int], ...] = ()
    cut: bool = False

    @property
    def sides(self) -> tuple[Steps, ...]:
        """What runs beside each other: the passes of the whole batch, or those of each half, the larger one first."""
        if not self.cut:
            return (self,)
        sizes, lengths = (-(-self.batch // 2), self.batch // 2), (self.lengths[::2], self.lengths[1::2])
        return tuple(replace(self, batch=n, lengths=own, cut=False) for n, own in zip(sizes, lengths, strict=True))


@dataclass(frozen=True)
class Pipeline:
    """Stages of the main stack and the micro-batches that pass through them; `steady`: one step follows another."""

    stages: int = 1
    micro_batches: int = 1
    layers: int = 0
    stride: int = 1  # devices between a rank and its peer in the next stage
    steady: bool = False
    spread: int = 1  # ranks that the tokens of the residual stream lie on

    def layers_of(self, stage: int) -> range:
        """Layers of a stage: as even as can be, the first stages take what is left over."""
        base, extra = divmod(self.layers, self.stages)
        start = stage * base + min(stage, extra)
        return range(start, start + base + (stage < extra))

    def bubble(self, stage_times: np.ndarray, weight: float) -> float:
        """Seconds a stage waits. Passes that follow each other fill the pipeline once, stages - 1 times the longest;
        in a steady state each step of fewer micro-batches than stages waits for the rest."""
        if self.steady:
            return float(np.sum(stage_times)) * weight * max(self.stages - self.micro_batches, 0)
        return float(np.max(stage_times)) * (self.stages - 1)


class Priced(NamedTuple):
    """A row of a table, how often a pass runs it, and one call: arrays with an element a pass, or one for all."""

    row: Row
    count: int
    work: Work
    time: Time

    def of_pass(self, index: int) -> Priced:
        """The row as one pass runs it."""
        work, time = ({k: v if v is None else _of_pass(v, index) for k, v in vars(x).items()} for x in self[2:])
        return Priced(self.row, self.count, Work(**work), Time(**time))


def _of_pass(value, index: int) -> np.ndarray:
    flat = np.asarray(value).reshape(-1)
    return flat[index if flat.size > 1 else 0]


@dataclass(frozen=True)
class Passes:
    """The passes that one piece of a table covers, priced: what a timeline is drawn from.

    Of passes that a phase is the mean of, only the middle one is kept; `count` says how many there are.

    `part`: the n-th table of the phase. `sides`, `chains`: of the whole batch, or of each of its halves, the piece and
    its passes, and its rows. `layers`: those of the pipeline stage, None for all. `host_s`: least seconds of a pass.
    """

    part: int
    sides: tuple[tuple[Piece, Steps], ...]
    chains: tuple[Sequence[Priced], ...]
    layers: range | None
    repeat: int
    host_s: float
    overlap: bool
    count: int

    @classmethod
    def kept(cls, part: int, sides, chains, layers: range | None, repeat: int, host_s: float, overlap: bool) -> Passes:
        steps = sides[0][1]
        if steps.weight != 1:
            middle = len(steps.tokens) // 2
            at = {"tokens": steps.tokens[middle : middle + 1], "past": steps.past[middle : middle + 1]}
            sides = [(piece, replace(side, **at)) for piece, side in sides]
            chains = [[each.of_pass(middle) for each in chain] for chain in chains]
        return cls(part, tuple(sides), tuple(chains), layers, repeat, host_s, overlap, len(steps.tokens))

    @property
    def steps(self) -> Steps:
        """The passes, with the batch of the larger half where there are two."""
        return self.sides[0][1]


def rows_of(piece: Piece, pipeline: Pipeline, hidden: int, item: str) -> tuple[Row, ...]:
    """The piece's rows, and with several stages the one that hands the result on."""
    if pipeline.stages == 1:
        return piece.rows
    return (*piece.rows, hand_over(piece, hidden, item, pipeline.stride, pipeline.spread))


def by_piece(table: OpTable, steps: Steps) -> list[list[tuple[Piece, Steps]]]:
    """The steps, sorted by the piece of the table that covers them; of halves, by those that cover the two."""
    sides, sorted_ = steps.sides, {}
    for point in zip(steps.tokens, steps.past, strict=True):
        pieces = [table.piece_for(side.batch, *point) for side in sides]
        if None in pieces:
            raise LookupError(f"the {table.phase} table has no piece for batch {steps.batch}, tokens and past {point}")
        sorted_.setdefault(tuple(map(id, pieces)), (pieces, []))[1].append(point)
    return [
        [
            (piece, replace(side, tokens=tuple(t for t, _ in at), past=tuple(c for _, c in at)))
            for piece, side in zip(pieces, sides, strict=True)
        ]
        for pieces, at in sorted_.values()
    ]


def count_of(row: Row, pipeline: Pipeline, stage: int) -> int:
    """How often a stage runs the row in one pass."""
    if row.place == "pre":
        return row.count if stage == 0 else 0
    if row.place == "post":
        return row.count if stage == pipeline.stages - 1 else 0
    if row.place == "stage":
        return row.count if stage < pipeline.stages - 1 else 0
    if row.place == "back":
        return row.count if stage > 0 else 0
    if pipeline.stages == 1:
        return row.count
    inside = pipeline.layers_of(stage)
    held = bisect_left(row.layers, inside.stop) - bisect_left(row.layers, inside.start)  # layers come in order
    return row.count * held // len(row.layers)


def hand_over(piece: Piece, hidden: int, item: str, stride: int, spread: int = 1) -> Row:
    """What a pipeline stage does with its result [batch, tokens, hidden]: pass it to the next stage.

    `spread`: ranks of a stage that each have a part of the tokens, and pass that on.
    """
    varies = [any(m[v] for m in piece.monomials) for v in (0, 1)]
    fixed = [1 if v else low for v, (low, _) in zip(varies, piece.ranges, strict=False)]
    where = (int(varies[0]), int(varies[1]), 0)
    tokens = tuple(float(fixed[0] * fixed[1]) if m == where else 0.0 for m in piece.monomials)
    dims = {"elements": tuple(hidden * c for c in tokens)} | ({"tokens": tokens} if spread > 1 else {})
    attrs = {"size": 2, "stride": stride, "format": item, "collective": "send_recv"}
    return Row("send_recv", "", 1, dims, attrs | ({"spread": spread} if spread > 1 else {}), ((), ()), place="stage")
