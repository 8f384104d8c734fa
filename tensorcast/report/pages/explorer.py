"""Rows of a search as a page explores them: the columns, packed; charts that it fills for the axes one chooses."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.charts import Chart
from tensorcast.report.charts.heatmap import heatmap_chart, option_axis
from tensorcast.report.charts.parallel import parallel_chart
from tensorcast.report.charts.pareto import SHOWN, pareto_chart
from tensorcast.report.charts.rows import axis, figure_of, figures_of, form_of, signed, title, varying_of, words_of
from tensorcast.report.pages.html import gzipped
from tensorcast.search.evaluation.figures import BEST
from tensorcast.search.pareto import truths_of

if TYPE_CHECKING:
    import pandas

    from tensorcast.report.pages.sample import Sample

MOST_LINES = 2000
"""Of parallel coordinates: more are a blot, and slow to draw without a graphics card."""
MOST_COLOURS = 8
ACROSS = ("tokens_per_s_per_user", "request_latency_s", "image_latency_s", "step_time_s", "total_bytes")
"""What is set against the figure of `figures.BEST`: the first that there is."""


@dataclass(frozen=True)
class Explorer:
    """`charts`: id → chart, to be filled by the page but `parallel`; `choices`: what it can be filled with.

    `varying`: options that tell rows apart, `colours`: those with few values. `lined`: rows that could have a line.
    """

    rows: str
    charts: dict[str, Chart]
    choices: dict[str, Any]
    varying: list[str]
    colours: list[str]
    lined: int

    @property
    def sort(self) -> str | None:
        """The figure that rows are compared by; None where there is none."""
        return self.choices["sort"]

    @property
    def figures(self) -> list[str]:
        return list(self.choices["figures"])

    @property
    def options(self) -> list[str]:
        """Those that a heat map may have along an axis."""
        return list(self.choices["options"])

    @property
    def main(self) -> list[str]:
        """Options that vary and the main figures."""
        return self.choices["hover"]

    @property
    def lines(self) -> int:
        """Lines of the parallel coordinates, no more than MOST_LINES."""
        return len(self._axes[0]["values"]) if self._axes else 0

    @property
    def axes(self) -> int:
        return len(self._axes)

    @property
    def _axes(self) -> list[dict[str, Any]]:
        return self.charts["parallel"]["data"][0]["dimensions"] if "parallel" in self.charts else []


def explorer(
    frame: pandas.DataFrame,
    *,
    varying: Sequence[str] | None = None,
    sort: str | None = None,
    x: str | None = None,
    y: str | None = None,
    good: str = "fits",
    sample: Sample | None = None,
) -> Explorer:
    """Of a frame's rows, those that count being `good`, a column of truths.

    `varying`: the options that tell rows apart; None: those that differ. `x`, `y`: of the front that is shown first;
    `sort`: the figure that rows are compared by. `sample`: what is known of rows that are left out; None: none are.
    """
    have = figures_of(frame)
    asked = [name for name in (sort, x, y) if name is not None]
    figures = [*dict.fromkeys([*(name for name in SHOWN if name in have), *have, *asked])]
    options = varying_of(frame) if varying is None else list(varying)
    sort = sort or next((name for name in BEST if name in figures), figures[0] if figures else None)
    y = y or sort
    x = x or next((name for name in (*ACROSS, *figures) if name in figures and name != y), y)
    main = [*dict.fromkeys(n for n in (sort, x, y, *(f for f in figures if f in SHOWN)) if n is not None)]
    empty, charts, lined = frame.head(0), {}, 0
    if figures:
        charts["pareto"] = pareto_chart(empty, x, y, names=[*options, *main], good=good)
        rows = frame[truths_of(frame, good) & frame[sort].notna().to_numpy()]
        lined = len(rows)
        if lined > 1:
            rows = _some(rows, main)
            charts["parallel"] = parallel_chart(rows, sort, _lined(rows, options, main, sort), good=good)
    across = options
    if len(options) == 1:
        across = [*dict.fromkeys((*options, *(name for name in ("hw", "model") if name in frame)))][:2]
    if figures and len(across) > 1 and truths_of(frame, good).any():
        charts["heatmap"] = heatmap_chart(empty, across[-1], across[0], sort, good=good)
    reasons = "reason" in frame and (frame["reason"].astype(str) != "").any()
    choices = {
        "x": x, "y": y, "value": sort, "sort": sort, "good": good,
        "across": across[-1] if across else None, "up": across[0] if across else None,
        "hover": [*options, *main], "columns": [*options, *main, good, *(["reason"] if reasons else [])],
        "words": words_of(good),
        "figures": {name: _choice(empty, name, across, good) for name in figures},
        "options": {name: option_axis(name) for name in across},
        "fronts": None if sample is None else sample.fronts,
        "cells": {"ranked": sample.ranked, "pairs": sample.cells} if sample and sample.fronts else None,
    }  # fmt: skip
    colours = [name for name in options if frame[name].nunique(dropna=False) <= MOST_COLOURS]
    return Explorer(packed(frame), charts, choices, options, colours, lined)


def _choice(empty: pandas.DataFrame, name: str, across: Sequence[str], good: str) -> dict[str, Any]:
    """All that the page needs to draw a figure."""
    cells = heatmap_chart(empty, across[-1], across[0], name, good=good)["data"][0] if across else None
    figure = figure_of(name)
    return {"axis": axis(name), "scale": form_of(name).scale, "less": figure.less, "unit": figure.unit, "cells": cells,
            "meaning": figure.meaning, "label": title(name)}  # fmt: skip


def _lined(rows: pandas.DataFrame, options: Sequence[str], main: Sequence[str], sort: str) -> list[str]:
    """Axes of parallel coordinates: the figure that colours last; figures that only some rows have are left out."""
    return [*options, *(name for name in main if name != sort and rows[name].notna().all()), sort]


def _some(rows: pandas.DataFrame, figures: Sequence[str]) -> pandas.DataFrame:
    """No more than MOST_LINES of the rows: the best by each figure and evenly spaced ones."""
    if len(rows) <= MOST_LINES:
        return rows
    best = {int(np.nanargmin(signed(rows, name))) for name in figures if rows[name].notna().any()}
    even = np.unique(np.linspace(0, len(rows) - 1, MOST_LINES - len(best)).astype(int)).tolist()
    return rows.iloc[sorted(best.union(even))]


def packed(frame: pandas.DataFrame) -> str:
    """The columns as JSON, gzipped, in base64: {"numbers": float64, "whole"} or {"names", "codes": int32, -1: none}."""
    columns = {str(name): _column(frame[name]) for name in frame.columns}
    text = json.dumps({"rows": len(frame), "columns": columns}, allow_nan=False, separators=(",", ":"))
    return gzipped(text)


def _column(values: pandas.Series) -> dict[str, Any]:
    import pandas
    from pandas.api import types

    if types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype="<f8", na_value=np.nan)
        return {"numbers": _base64(numbers), "whole": bool(types.is_integer_dtype(values))}
    codes, names = pandas.factorize(values)
    names = [name if isinstance(name, bool) else str(name) for name in names.tolist()]
    return {"names": names, "codes": _base64(codes.astype("<i4"))}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
