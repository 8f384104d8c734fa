"""How good a sweep's best configurations are along each of its numbers: the best at every value, table by table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tensorcast.search.frame import column_of
from tensorcast.search.pareto import more_is_better


class Ridge(NamedTuple):
    """`points`: the values of an option, rising. `values`: a figure's best at each, NaN where nothing fits."""

    points: np.ndarray
    values: np.ndarray


class Along:
    """Add tables, then ask for the ridge of a figure along each option whose column is a number."""

    def __init__(self, options: Sequence[str]) -> None:
        self._columns = [column_of(name) for name in options]
        self._best: dict[tuple[str, str], dict[float, float]] = {}

    def add(self, table: pa.Table, fits: np.ndarray, figures: Sequence[str]) -> None:
        """`fits`: which rows count; the values of the others are points all the same."""
        figures = [name for name in figures if table[name].null_count < len(table)]
        for column in self._columns if figures else ():
            kind = table[column].type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                continue
            at = table[column].to_numpy().astype(float)
            points, place = np.unique(at, return_inverse=True)
            for name in figures:
                sign = 1 if more_is_better(name) else -1
                best = np.full(len(points), np.nan)
                np.fmax.at(best, place[fits], sign * table[name].to_numpy().astype(float)[fits])
                kept = self._best.setdefault((column, name), {})
                for point, value in zip(points[~np.isnan(points)].tolist(), (sign * best).tolist(), strict=False):
                    kept[point] = _better(kept.get(point, np.nan), value, sign)

    def ridges(self, figure: str) -> dict[str, Ridge]:
        """Option's column → its ridge, where there are two points or more."""
        found = {column: sorted(kept.items()) for (column, name), kept in self._best.items() if name == figure}
        return {column: Ridge(*np.array(pairs).T) for column, pairs in found.items() if len(pairs) > 1}


def _better(one: float, other: float, sign: int) -> float:
    return float(sign * np.fmax(sign * one, sign * other))
