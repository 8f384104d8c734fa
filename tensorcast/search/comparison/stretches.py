"""Who leads where: a figure of several alternatives at the same points, cut where the answer changes.

Every point is looked at on its own, so that figures may rise and fall as they like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

SAME = 1e-9
"""Relative difference up to which two figures count as equal: what pricing them together may cost."""


class Stretch(NamedTuple):
    """Neighbouring points `first` … `last`. `best`: who leads, all of them where they are equal.

    `among`: those that have the figure there. `most`: how many times better the best is than the worst of these, at
    most; NaN where there is nothing to compare or a figure is not above 0.
    """

    first: int
    last: int
    best: tuple[int, ...]
    among: tuple[int, ...]
    most: float

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values; `names`: of the alternatives."""
        said = {"best": [names[i] for i in self.best], "among": [names[i] for i in self.among]}
        return self._asdict() | said


@dataclass(frozen=True)
class Pair:
    """Two alternatives: the stretches partition the points."""

    first: int
    second: int
    stretches: tuple[Stretch, ...]

    @property
    def break_even(self) -> tuple[int, ...]:
        """The first point of every new order: where the other leads, or they are equal. Only points with both count."""
        orders = [(stretch.first, stretch.best) for stretch in self.stretches if len(stretch.among) == 2]
        return tuple(at for (_, before), (at, now) in pairwise(orders) if now != before)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "alternatives": [names[self.first], names[self.second]],
            "break_even": list(self.break_even),
            "stretches": [each.to_dict(names) for each in self.stretches],
        }


def leads(values: np.ndarray, points: np.ndarray, less: bool) -> list[Stretch]:
    """Stretches with one answer to who leads, of those that have the figure. `less`: less is better.

    `values` [alternatives, points]: NaN where an alternative does not count. `points`: rising whole numbers.
    """
    best = _best(values, less)
    return [_stretch(values, best, points, rows) for rows in runs(_coded(best))]


def pairs(values: np.ndarray, points: np.ndarray, less: bool) -> list[Pair]:
    """Every two alternatives; what changes is who leads, or which of the two have the figure."""
    found = []
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            both = np.full_like(values, np.nan)
            both[[first, second]] = values[[first, second]]
            best = _best(both, less)
            cut = runs(_coded(best) + (_coded(~np.isnan(both)) << len(values)))
            found.append(Pair(first, second, tuple(_stretch(both, best, points, rows) for rows in cut)))
    return found


def runs(codes: np.ndarray) -> list[slice]:
    """Slices of neighbours with one code.

    >>> runs(np.array([3, 3, 1]))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def sentence(stretches: Sequence[Stretch], say: Callable[[Stretch, str], str], most: int) -> str:
    """Stretches in words: `a leads up to 37; b leads from 38 to 512`. After `most` of them, how many more there are.

    `say`: of a stretch and the words for where it is.
    """
    told = []
    for number, stretch in enumerate(stretches[:most]):
        first, last = stretch.first, stretch.last
        where = f"at {first:,}" if first == last else f"from {first:,} to {last:,}"
        if number == 0 and first != last:
            where = f"up to {last:,}" if len(stretches) > 1 else f"everywhere, from {first:,} to {last:,}"
        told.append(say(stretch, where))
    if len(stretches) > most:
        told.append(f"and {len(stretches) - most:,} more changes up to {stretches[-1].last:,}")
    return "; ".join(told)


def _best(values: np.ndarray, less: bool) -> np.ndarray:
    """[alternatives, points]: whether no other is better there, by more than `SAME`."""
    signed = np.where(np.isnan(values), -np.inf, -values if less else values)
    top = signed.max(axis=0)
    with np.errstate(invalid="ignore"):
        return ~np.isnan(values) & (signed >= top - SAME * np.abs(top))


def _coded(members: np.ndarray) -> np.ndarray:
    """For each point one number for the set of alternatives that are true there."""
    return (members.astype(np.int64) << np.arange(len(members))[:, None]).sum(axis=0)


def _stretch(values: np.ndarray, best: np.ndarray, points: np.ndarray, rows: slice) -> Stretch:
    there = ~np.isnan(values[:, rows])
    apart = np.nan
    if (there.sum(axis=0) > 1).any():
        high = np.where(there, values[:, rows], -np.inf).max(axis=0)
        low = np.where(there, values[:, rows], np.inf).min(axis=0)
        apart = float((high / low).max()) if (low > 0).all() else np.nan
    return Stretch(
        int(points[rows][0]),
        int(points[rows][-1]),
        tuple(np.flatnonzero(best[:, rows][:, 0]).tolist()),
        tuple(np.flatnonzero(there.any(axis=1)).tolist()),
        apart,
    )
