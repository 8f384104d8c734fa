"""The rows of a sweep that a page holds: all of a few, of many the best, also of every cell of small heat maps, whole
fronts, and evenly spaced others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tensorcast.search.evaluation.figures import BEST
from tensorcast.search.pareto import front
from tensorcast.search.summary import merit, truths

if TYPE_CHECKING:
    import pandas

MOST = 10_000
TOP = 10
FRONTS = (*BEST, "tpot_s", "request_latency_s", "image_latency_s", "step_time_s", "total_bytes")
"""Figures of which every two have their front kept whole."""


class Sample:
    """A sink of tables: memory for MOST rows, or the fronts, beside the table that comes, however many there are.

    `every`: of the other rows each such one is kept. `total`: rows that came; `places`: of those that are kept.
    `ranked`: the figure of which the best of each cell is kept; None before rows are left out.
    """

    def __init__(self, *figures: str, options: Sequence[str] = (), ranked: str | None = None, most: int = MOST) -> None:
        """`figures`: those of which the best are kept and that have fronts, beside FRONTS. `options`: columns of which
        every two span a heat map of `ranked`; None: the first of BEST that there is."""
        self.figures, self.most = tuple(dict.fromkeys((*figures, *FRONTS))), most
        self.ranked, self._pairs = ranked, list(combinations(options, 2))
        self.total, self.every = 0, 1
        self._rows: pa.Table | None = None
        self.places = np.zeros(0, dtype=np.int64)

    def add(self, table: pa.Table) -> None:
        """Keep these rows, or of all that are kept and these no more than `most`."""
        places = np.arange(self.total, self.total + len(table))
        self.total += len(table)
        if self._rows is not None:
            table = pa.concat_tables([self._rows, table]).unify_dictionaries()
        self._rows, self.places = table, np.concatenate((self.places, places))
        if len(table) > self.most:
            self._thin()

    @property
    def rows(self) -> pa.Table:
        """In the order they came in."""
        return self._rows

    def __len__(self) -> int:
        return len(self.places)

    @property
    def fronts(self) -> list[tuple[str, str]] | None:
        """The pairs of figures whose front is whole; None: every row is there."""
        return None if self.every == 1 else list(combinations(self.figures, 2))

    @property
    def cells(self) -> list[tuple[str, str]]:
        """The pairs of options of which every cell's best is there."""
        return self._pairs

    def _thin(self) -> None:
        needed = self._needed()
        while True:
            keep = needed | (self.places % self.every == 0)
            if keep.sum() <= self.most or self.every > self.total:
                break
            self.every *= 2
        at = np.flatnonzero(keep)
        self._rows, self.places = self._rows.take(at), self.places[at]

    def _needed(self) -> np.ndarray:
        """The best rows by each figure and of each cell, and the fronts."""
        needed = np.zeros(len(self._rows), dtype=bool)
        fits = np.flatnonzero(truths(self._rows["fits"].cast(pa.bool_())))
        have = [name for name in self.figures if name in self._rows.column_names]
        values = {name: merit(self._rows, name)[fits] for name in have}
        for each in values.values():
            order = np.argsort(-each, kind="stable")
            needed[fits[order[~np.isnan(each[order])][:TOP]]] = True
        for one, other in combinations(values, 2):
            there = np.flatnonzero(~np.isnan(values[one]) & ~np.isnan(values[other]))
            needed[fits[there[front(values[one][there], values[other][there])]]] = True
        self.ranked = self.ranked or next(
            (name for name in BEST if name in have and (values[name] > -np.inf).any()), None
        )
        if self.ranked is not None:
            worth = merit(self._rows, self.ranked)[fits]
            ranked = fits[np.argsort(-worth, kind="stable")[: np.count_nonzero(~np.isnan(worth))]]
            needed[self._best_of_cells(ranked)] = True
        return needed

    def _best_of_cells(self, ranked: np.ndarray) -> np.ndarray:
        """Of the rows, the best first, the first of each cell; pairs with many cells are given up for good."""
        options = {name: _codes(self._rows[name]) for name in dict.fromkeys(sum(self._pairs, ()))}
        size = {name: 1 + int(codes.max(initial=0)) for name, codes in options.items()}
        best, left, kept = [ranked[:0]], self.most // 4, []
        for pair in sorted(self._pairs, key=lambda pair: size[pair[0]] * size[pair[1]]):
            cells = options[pair[0]][ranked] * size[pair[1]] + options[pair[1]][ranked]
            _, first = np.unique(cells, return_index=True)
            left -= len(first)
            if left < 0:
                break
            best.append(ranked[first])
            kept.append(pair)
        self._pairs = kept
        return np.concatenate(best)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each of its values, 0 for none."""
    codes = column.combine_chunks().dictionary_encode().indices
    return 1 + pc.fill_null(codes, -1).to_numpy().astype(np.int64)


def few(
    frame: pandas.DataFrame, *figures: str, options: Sequence[str] = (), ranked: str | None = None
) -> tuple[pandas.DataFrame, Sample]:
    """The rows of a frame that a page holds; the rest as of Sample."""
    sample = Sample(*figures, options=options, ranked=ranked)
    needed = [
        name for name in dict.fromkeys((*sample.figures, ranked, "fits")) if name in frame and name not in options
    ]
    texts = {name: frame[name].astype("string") for name in options}
    sample.add(pa.Table.from_pandas(frame[needed].assign(**texts), preserve_index=False))
    return (frame if sample.every == 1 else frame.iloc[sample.places]), sample
