"""One figure of several alternatives along one option, and who leads where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tensorcast.errors import InputError
from tensorcast.options import flag
from tensorcast.search.axes.values import axis
from tensorcast.search.comparison.alternatives import LOAD, METRICS, Alternative
from tensorcast.search.comparison.stretches import Pair, Stretch, leads, pairs, runs
from tensorcast.search.evaluation.figures import BEST, Figure
from tensorcast.search.evaluation.group import Columns

RANGES = {"batch": "1:512:x2", "input_len": "1024:32768:x2", "output_len": "64:4096:x2", LOAD: "1:512:x2"}
"""What a curve runs along → the values it has unless told."""
EVERY = 1 << 16
"""Of a range with so many whole numbers all are priced."""
FITS, UNFIT, REFUSED, NOTHING = "fits", "does not fit", "refused", "has no such figure"


class Standing(NamedTuple):
    """What holds for an alternative from `first` to `last`. `reason`: why it is refused, at `first`."""

    first: int
    last: int
    state: str
    reason: str


@dataclass(frozen=True)
class Curve:
    """One metric of all alternatives along one option.

    `shown`: the values asked for. `points`: those priced: every whole number from the first to the last of `shown`,
    where that many can be priced together, else `shown` alone. `columns`: of each alternative, an element a point.
    """

    along: str
    metric: str
    shown: np.ndarray
    points: np.ndarray
    columns: tuple[Columns, ...]

    @property
    def figure(self) -> Figure:
        return METRICS[self.metric]

    @property
    def every_number(self) -> bool:
        return len(self.points) == int(self.points[-1]) - int(self.points[0]) + 1

    @cached_property
    def values(self) -> np.ndarray:
        """[alternatives, points], NaN where an alternative has no figure."""
        nothing = np.full(len(self.points), np.nan)
        return np.array([np.asarray(c.get(self.metric, nothing), dtype=float) for c in self.columns])

    @cached_property
    def fits(self) -> np.ndarray:
        """[alternatives, points]"""
        nothing = np.zeros(len(self.points))
        return np.array([np.nan_to_num(np.asarray(c.get("fits", nothing), dtype=float)) == 1 for c in self.columns])

    @cached_property
    def fair(self) -> np.ndarray:
        """The values, NaN too where it does not fit in memory."""
        return np.where(self.fits, self.values, np.nan)

    @cached_property
    def leads(self) -> list[Stretch]:
        """Who is best, of all that fit; the stretches partition the points."""
        return leads(self.fair, self.points, self.figure.less)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every two alternatives; where both fit, who is better."""
        return pairs(self.fair, self.points, self.figure.less)

    def standings(self, number: int) -> list[Standing]:
        """From where to where the alternative fits, does not, or is refused; these partition the points."""
        reason = self.columns[number]["reason"]
        refused = np.asarray(reason != "", dtype=bool)
        codes = np.select([refused, ~self.fits[number], np.isnan(self.values[number])], [2, 1, 3], 0)
        names = (FITS, UNFIT, REFUSED, NOTHING)
        return [
            Standing(int(self.points[rows][0]), int(self.points[rows][-1]), names[codes[rows][0]], str(reason[rows][0]))
            for rows in runs(codes)
        ]

    def places(self, points: np.ndarray) -> np.ndarray:
        """Where these values are among the points."""
        return np.searchsorted(self.points, points)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values; `names`: of the alternatives."""
        at = self.places(self.shown)
        return {
            "along": self.along,
            "metric": self.metric,
            "less_is_better": self.figure.less,
            "points": len(self.points),
            "every_number": self.every_number,
            "values": self.shown.tolist(),
            "figures": {name: self.values[i, at].tolist() for i, name in enumerate(names)},
            "standings": {name: [each._asdict() for each in self.standings(i)] for i, name in enumerate(names)},
            "leads": [each.to_dict(names) for each in self.leads],
            "pairs": [each.to_dict(names) for each in self.pairs],
        }


def values_of(along: str, values: Any) -> np.ndarray:
    """The values of the curve, rising, each once."""
    try:
        found = axis(along, RANGES[along] if values is None else values)
    except InputError as error:
        raise InputError(str(error).replace(flag(along), "--values", 1)) from None
    if None in found:
        raise InputError("--values: none is no value of a curve; give whole numbers, such as 1:512:x2")
    return np.unique(np.array(found, dtype=np.int64))


def curve_of(rows: Sequence[Alternative], along: str, shown: np.ndarray, metric: str | None, tell: Callable) -> Curve:
    """The curve of alternatives; first the values `shown` alone, which tell whether all numbers between can be priced.

    `tell`: called with (what is being done, share done). InputError when all is refused, and for an absent metric.
    """
    points, columns = shown, [each.along(along, shown) for each in rows]
    every = int(shown[-1]) - int(shown[0]) + 1
    good = [each for each, found in zip(rows, columns, strict=True) if (found["reason"] == "").any()]
    if not good:
        if all(each.work["reason"] for each in rows):
            raise InputError(f"every alternative is refused: {rows[0].work['reason']}")
        reason = f"at all values every alternative is refused: {columns[0]['reason'][0]}"
        raise InputError(f"--along {flag(along)[2:]}: {reason}; --along none compares the asked work alone")
    if len(shown) < every <= EVERY and all(each.together for each in good):
        points = np.arange(shown[0], shown[-1] + 1)
        columns = []
        for number, each in enumerate(rows):
            tell(f"{every:,} values of {each.name}", (number / len(rows) * 3 + 1) / 4)
            columns.append(each.along(along, points))
    return Curve(along, _metric(metric, along, columns), shown, points, tuple(columns))


def _metric(metric: str | None, along: str, columns: Sequence[Columns]) -> str:
    """The one asked for, or the first of `figures.BEST` that there is."""
    have = [
        name
        for name in METRICS
        if any(name in found and not np.isnan(np.asarray(found[name], dtype=float)).all() for found in columns)
    ]
    if metric is None:
        return next((name for name in BEST if name in have), have[0])
    if metric not in have:
        raise InputError(
            f"--metric {metric}: no alternative has it along {flag(along)[2:]}; there is {', '.join(have)}"
        )
    return metric
