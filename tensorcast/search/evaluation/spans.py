"""Stretches of consecutive numbers that many configurations want, joined where they overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Spans:
    """Numbers start … stop - 1 of each span; spans of one head do not overlap and stand together.

    `cases`: positions of the stretches that lie in these spans, `span` the one that each lies in.
    """

    head: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    cases: np.ndarray
    span: np.ndarray

    @cached_property
    def offset(self) -> np.ndarray:
        """Position of each span's first number, all numbers in a row."""
        lengths = self.stop - self.start
        return np.cumsum(lengths) - lengths

    @cached_property
    def where(self) -> np.ndarray:
        """For every number the span it belongs to."""
        return np.repeat(np.arange(len(self.start)), self.stop - self.start)

    @cached_property
    def numbers(self) -> np.ndarray:
        where = self.where
        return np.arange(len(where)) + (self.start - self.offset)[where]


def joined_spans(head: np.ndarray, start: np.ndarray, stop: np.ndarray, most: int) -> Iterator[Spans]:
    """The stretches start … stop - 1 of every head, joined; at most `most` numbers at a time, or one span.

    >>> [found] = joined_spans(np.array([0, 0]), np.array([1, 3]), np.array([4, 6]), 100)
    >>> found.start.tolist(), found.stop.tolist(), found.numbers.tolist()
    ([1], [6], [1, 2, 3, 4, 5])
    """
    order = np.lexsort((start, head))
    width = int(stop.max(initial=0)) + 1  # heads lie so far apart that they never meet
    low, high = (start + head * width)[order], (stop + head * width)[order]
    reach = np.maximum.accumulate(high)
    new = np.concatenate([[True], low[1:] > reach[:-1]]) if len(low) else np.zeros(0, dtype=bool)
    span = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    heads, begin = head[order][first], start[order][first]
    end = np.maximum.reduceat(stop[order], first) if len(first) else stop
    for part in blocks(end - begin, most):
        inside = slice(*np.searchsorted(span, [part.start, part.stop]))
        yield Spans(heads[part], begin[part], end[part], order[inside], span[inside] - part.start)


def blocks(sizes: np.ndarray, most: int) -> Iterator[slice]:
    """Consecutive positions whose sizes sum up to `most` or less, or a single one.

    >>> [(b.start, b.stop) for b in blocks(np.array([3, 3, 9, 1]), 6)]
    [(0, 2), (2, 3), (3, 4)]
    """
    total, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + most, side="right")))
        yield slice(start, stop)
        start = stop
