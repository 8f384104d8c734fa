"""Parallel coordinates: a line a configuration, through its options and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import unescape
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import MERIT
from tensorcast.report.charts.pareto import SHOWN
from tensorcast.report.charts.rows import (
    figures_of,
    finite,
    form_of,
    numbers,
    said,
    signed,
    steps,
    title,
    varying_of,
)
from tensorcast.report.terminal.sweep import SHORT
from tensorcast.search.evaluation.figures import BEST
from tensorcast.search.pareto import check_column, truths_of

if TYPE_CHECKING:
    import pandas

MOST_STEPS = 24
"""An option with more values has an axis of numbers."""
DIGITS = 6


def parallel_chart(
    frame: pandas.DataFrame, colour: str | None = None, names: Sequence[str] | None = None, good: str = "fits"
) -> Chart:
    """A line a row that is `good`, through `names`: options and figures; None: what varies, and main figures that all
    rows have. A row without one of them has no line.

    `colour`: the figure that colours the lines, the better the stronger and the nearer; None: the first of
    `figures.BEST` that there is.
    """
    for name in filter(None, (colour, *(names or ()))):
        check_column(frame, name)
    frame = finite(frame)
    rows = frame[truths_of(frame, good)]
    have = figures_of(frame)
    colour = colour or next((name for name in BEST if name in have), have[0] if have else None)
    if names is None:
        whole = [name for name in have if rows[name].notna().all()]
        names = [*varying_of(frame), *(name for name in whole if name in SHOWN and name != colour)]
        names += [colour] if colour else []
    figures = [name for name in names if name in have or name == colour]
    rows = rows[rows[figures].notna().all(axis=1)]
    dimensions = [_figure(rows, name) if name in figures else _option(rows, name) for name in names]
    line: dict[str, Any] = {"color": "#0072B2"}
    if colour is not None:
        line = {"color": _few(-signed(rows, colour)), "colorscale": MERIT}  # Plotly draws the greatest last
    data = {"type": "parcoords", "dimensions": dimensions, "line": line}
    first = max([0, *(len(text) for text in dimensions[0].get("ticktext", []))]) if dimensions else 0
    layout: dict[str, Any] = {"height": 440, "margin": {"l": 40 + 7 * min(first, 24), "r": 60, "t": 70, "b": 30}}
    layout["meta"] = f"{len(rows):,} configuration{'s' if len(rows) != 1 else ''}, a line each" + (
        f", coloured by {title(colour)}." if colour else "."
    )
    return {"data": [data], "layout": layout}


def _figure(rows: pandas.DataFrame, name: str) -> dict[str, Any]:
    values, unit = numbers(rows, name), form_of(name).suffix.strip()
    if unit == "s" and len(values) and values.max() < 1:
        values, unit = values * 1e3, "ms"
    label = f"{shown(SHORT.get(name) or title(name))}{f' [{unit}]' if unit else ''}"
    return {"label": label, "values": _few(values), "tickformat": f",.{_digits(values)}~r"}


def _digits(values: np.ndarray) -> int:
    """Three, and more where that would make all ticks the same.

    >>> _digits(np.array([20.0, 9000.0])), _digits(np.array([5700.0, 5702.0]))
    (3, 6)
    """
    span = np.ptp(values) if len(values) else 0.0
    return min(DIGITS, 3 + int(np.log10(np.abs(values).max() / span))) if span else 3


def _option(rows: pandas.DataFrame, name: str) -> dict[str, Any]:
    """An axis with a step for each value, evenly spaced; of many numbers, as numbers."""
    values = said(rows, name)
    found = steps(values)
    if len(found) > MOST_STEPS and not any(isinstance(value, str) for value in found):
        return {"label": shown(name), "values": values}
    place = {value: number for number, value in enumerate(found)}
    return {
        "label": shown(name),
        "values": [place[value] for value in values],
        "tickvals": list(range(len(found))),
        "ticktext": [unescape(str(value)) for value in found],  # which Plotly shows as they are
        "range": [0, len(found) - 1] if len(found) > 1 else [-0.5, 0.5],
    }


def _few(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
