"""What a sweep found, table by table: how many rows are refused and why, how many fit, the best, the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tensorcast.errors import InputError, near_names
from tensorcast.search.along import Along
from tensorcast.search.evaluation.figures import BEST, FIGURES
from tensorcast.search.frame import to_pandas
from tensorcast.search.pareto import front, more_is_better

if TYPE_CHECKING:
    import pandas

Chosen = Callable[[pa.Table, np.ndarray], np.ndarray]
"""(table, positions in it) → those positions to keep, in order."""


class Summary:
    """`rows`, `refused`, `unfit`: counts. `reasons`: why how many are refused. No more than `top` rows are kept."""

    def __init__(
        self,
        top: int = 10,
        sort: str | None = None,
        pareto: tuple[str, str] | None = None,
        along: Sequence[str] = (),
    ) -> None:
        """`sort`: the figure that rows are compared by. `pareto`: the two of a front, which is kept whole.

        `along`: options; how the best of these figures moves along those that are numbers is kept in `self.along`.
        """
        self.top, self.sort, self.pareto = top, sort, pareto
        self.rows = self.refused = self.unfit = 0
        self.reasons: Counter[str] = Counter()
        self._best: dict[str, pa.Table] = {}
        self.along = Along(along)

    def add(self, table: pa.Table) -> None:
        """Count these rows, and keep those that are better than what was kept."""
        self.rows += len(table)
        for entry in pc.value_counts(table["reason"].cast(pa.string())).to_pylist():
            if entry["values"]:
                self.reasons[entry["values"]] += entry["counts"]
                self.refused += entry["counts"]
        fits, unfit = (truths(column) for column in (table["fits"], pc.invert(table["fits"])))
        self.unfit += int(unfit.sum())
        if self.pareto:
            self._keep("front", self._front, table, fits)
        else:
            for name in self._figures:
                self._keep(name, partial(self._first, name), table, fits)
        self._keep("unfit", partial(self._first, "total_bytes"), table, unfit)
        self.along.add(table, fits, self._figures)

    @property
    def _figures(self) -> Sequence[str]:
        """What rows are compared by: the first of these that they have."""
        return self.pareto or ((self.sort,) if self.sort else BEST)

    @property
    def fit(self) -> int:
        return self.rows - self.refused - self.unfit

    def to_dict(self) -> dict[str, Any]:
        """Plain values: counts, and the reasons with how many rows each refuses."""
        reasons = [{"reason": reason, "rows": rows} for reason, rows in self.reasons.most_common()]
        return {
            "configurations": self.rows,
            "fit": self.fit,
            "unfit": self.unfit,
            "refused": self.refused,
            "reasons": reasons,
        }

    def check(self) -> None:
        """InputError when every configuration is refused."""
        if self.rows and self.refused == self.rows:
            reason, _ = self.reasons.most_common(1)[0]
            what = "the configuration is" if self.rows == 1 else f"all {self.rows:,} configurations are"
            raise InputError(f"{what} refused: {reason}")

    def best(self) -> tuple[str, pandas.DataFrame | None]:
        """(what the rows are sorted by, the best that fit); where none fits, those that need least memory.

        With `pareto` the front, its first figure rising. None: no row has such figures.
        """
        if self.pareto:
            name, found = self.pareto[0], self._best.get("front")
        else:
            name = next((name for name in self._figures if name in self._best), "")
            found = self._best.get(name)
        if found is None:
            name, found = "total_bytes", self._best.get("unfit")
        return name, None if found is None else to_pandas(found)

    def _keep(self, key: str, chosen: Chosen, table: pa.Table, wanted: np.ndarray) -> None:
        """Keep, of what was kept before and the rows that are `wanted`, those that `chosen` gives."""
        rows = table.take(chosen(table, np.flatnonzero(wanted)))
        if len(rows):
            both = pa.concat_tables([self._best[key], rows]) if key in self._best else rows
            self._best[key] = both.take(chosen(both, np.arange(len(both))))

    def _first(self, name: str, table: pa.Table, rows: np.ndarray) -> np.ndarray:
        """The positions, of `rows`, of the best by a figure, best first."""
        values = -merit(table, name)[rows]
        return rows[np.argsort(values, kind="stable")[: min(self.top, np.count_nonzero(~np.isnan(values)))]]

    def _front(self, table: pa.Table, rows: np.ndarray) -> np.ndarray:
        """The positions, of `rows`, of the Pareto front, its first figure rising."""
        x, y = (merit(table, name) for name in self.pareto)
        rows = rows[~np.isnan(x[rows]) & ~np.isnan(y[rows])]
        found = rows[front(x[rows], y[rows])]
        return found if more_is_better(self.pareto[0]) else found[::-1]


def merit(table: pa.Table, name: str) -> np.ndarray:
    """A figure with its sign such that more is better; NaN where there is none."""
    values = table[name].to_numpy().astype(float)
    return values if more_is_better(name) else -values


def truths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, False).to_numpy()


def check_figure(name: str, flag: str) -> str:
    """`name`, where it is a figure of a sweep's rows; InputError."""
    if name not in FIGURES:
        near = near_names(name, FIGURES) or [each for each in FIGURES if each.endswith(("_s", "_user", "_device"))][:6]
        raise InputError(f"{flag} {name!r}: no such figure; there is {', '.join(near)}")
    return name
