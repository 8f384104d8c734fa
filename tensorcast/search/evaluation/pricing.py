"""Seconds of many forward passes: a table at many points, each row at the sizes that differ for it and no other.

A row of a table depends on some of (batch, tokens, past). Most depend on few: of a decode step only the attention sees
the cache. So a row is priced once for each combination of the variables it depends on, and added up where all meet.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from tensorcast.cost.passes import Pipeline, count_of, rows_of
from tensorcast.cost.phase import host_s
from tensorcast.cost.pricing import time_of_row
from tensorcast.optable import OpTable, Piece, Row
from tensorcast.search.evaluation.cases import distinct

BLOCK = 32768  # points at a time: what is computed on the way mostly stays in the processor's cache
THREADED = 4
"""Blocks from which on several threads share them."""


@dataclass(frozen=True)
class Seconds:
    """Of each pipeline stage of `Machine.stages` [stages, points]: of the device; and no less than the host needs."""

    device: np.ndarray
    slot: np.ndarray


Heads = tuple[np.ndarray, np.ndarray]
"""(positions of one point of each combination of batch and tokens, for every point which of them)"""


class Missing(LookupError):
    """Points that no piece of a table covers: (table, (batch, tokens, past))."""

    def __init__(self, points: list[tuple[str, tuple[int, int, int]]]) -> None:
        super().__init__(f"{len(points)} points are in no table")
        self.points = points


@dataclass(frozen=True)
class Machine:
    """What prices depend on, beside the table. `stages`: the pipeline's stages that differ from each other."""

    hw: object
    pipeline: Pipeline
    stages: tuple[int, ...]
    eager: bool
    hidden: int
    item: str


class Prices:
    """The passes of one table on one machine."""

    def __init__(self, name: str, table: OpTable, machine: Machine) -> None:
        self.name, self.table = name, table
        self.pieces = [PiecePrices(piece, machine) for piece in table.pieces]

    def piece_of(self, batch, tokens, past) -> np.ndarray:
        """For each point the number of the piece that is used there; Missing."""
        which = np.full(len(batch), -1)
        for number, piece in enumerate(self.table.pieces):
            inside = (which < 0) & piece.covers_all(batch, tokens, past)
            which[inside] = number
        if (which < 0).any():
            out = which < 0
            found = np.unique(np.stack([batch[out], tokens[out], past[out]], axis=1), axis=0)
            raise Missing([(self.name, tuple(map(int, point))) for point in found])
        return which

    def at(self, batch, tokens, past, heads: Heads | None = None) -> Seconds:
        """Seconds at points; Missing where the table does not reach."""
        which = self.piece_of(batch, tokens, past)
        if (which == which[:1]).all():
            return self.pieces[which[0]].at(batch, tokens, past, heads)
        found = None
        for number in np.unique(which):
            here = which == number
            part = self.pieces[number].at(batch[here], tokens[here], past[here])
            found = found or Seconds(*(np.empty((len(self.pieces[number].counts), len(batch))) for _ in range(2)))
            found.device[:, here], found.slot[:, here] = part.device, part.slot
        return found


class PiecePrices:
    """Rows of one piece, sorted by what they depend on."""

    def __init__(self, piece: Piece, machine: Machine) -> None:
        self.piece, self.machine = piece, machine

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        m = self.machine
        return rows_of(self.piece, m.pipeline, m.hidden, m.item)

    @cached_property
    def counts(self) -> np.ndarray:
        """[stages, rows]: how often each stage runs each row."""
        pipeline = self.machine.pipeline
        return np.array([[count_of(r, pipeline, stage) for r in self.rows] for stage in self.machine.stages], float)

    @cached_property
    def by_variables(self) -> Mapping[tuple[bool, bool, bool], list[tuple[int, dict[str, Any]]]]:
        """Which of (batch, tokens, past) rows depend on → (row number, coefficients of its sizes)."""
        powers = np.array(self.piece.monomials)
        found: dict[tuple[bool, bool, bool], list] = {}
        for number, row in enumerate(self.rows):
            sizes, used = {}, np.zeros(len(powers), dtype=bool)
            for name, coefficients in row.dims.items():
                c = np.asarray(coefficients, dtype=float)
                varies = (c != 0) & (powers > 0).any(axis=1)
                # A number, where it is one for all points.
                sizes[name] = [(number, c[number]) for number in np.flatnonzero(c)] if varies.any() else c.sum()
                used |= varies
            found.setdefault(tuple((powers[used] > 0).any(axis=0)), []).append((number, sizes))
        return found

    def at(self, batch, tokens, past, heads: Heads | None = None) -> Seconds:
        points = [np.asarray(column, dtype=float) for column in (batch, tokens, past)]
        device = np.zeros((len(self.counts), len(batch)))
        launches = np.zeros(len(self.counts))
        for variables, rows in self.by_variables.items():
            first, which = self._combinations(points, variables, heads)
            seconds, started = self._rows(rows, [column[first] for column in points])
            device += seconds if which is None else seconds[:, which]
            launches += started
        host = np.asarray(host_s(launches, self.machine.hw, self.machine.eager))
        return Seconds(device, np.maximum(device, host.reshape(-1, 1)))

    @staticmethod
    def _combinations(points, variables, heads: Heads | None):
        """(positions where rows that depend on `variables` are priced, for every point which of them or None)"""
        columns = [column for column, used in zip(points, variables, strict=True) if used]
        if not columns:
            return slice(0, 1), np.zeros(len(points[0]), dtype=np.int64)
        if len(columns) == len(points) or (variables[2] and heads is not None):
            return slice(None), None
        return distinct(*columns) if heads is None else heads

    def _rows(self, rows: Iterable, points: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """([stages, points] seconds of these rows, [stages] their launches)"""
        total, started = np.zeros((len(self.counts), len(points[0]))), np.zeros(len(self.counts))

        def block(start: int) -> None:
            part = slice(start, start + BLOCK)
            basis = self.piece.basis(*(column[part] for column in points))
            for number, sizes in rows:
                dims = {name: _size(terms, basis) for name, terms in sizes.items()}
                time = time_of_row(self.rows[number], dims, self.machine.hw)
                counts = self.counts[:, number]
                total[:, part] += counts[:, None] * time.seconds
                if start == 0:
                    started[:] += counts * float(np.mean(time.launches))

        starts = range(0, len(points[0]), BLOCK)
        threads = _threads() if len(starts) >= THREADED else None
        if threads is None:
            for start in starts:
                block(start)
        else:  # NumPy lets other threads run while it computes
            list(threads.map(block, starts))
        return total, started


def _size(terms: Any, basis: np.ndarray) -> Any:
    """A size at the points of `basis`: a number, or the sum of (monomial, coefficient)s, of which most have one."""
    if not isinstance(terms, list):
        return terms
    (first, coefficient), *rest = terms
    out = basis[first] * coefficient
    for number, coefficient in rest:
        out += basis[number] * coefficient
    return out


@cache
def _threads() -> ThreadPoolExecutor | None:
    """One a core; None in a process of several that share them."""
    return None if multiprocessing.parent_process() else ThreadPoolExecutor(os.cpu_count())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads stay with the parent
