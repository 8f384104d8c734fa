"""A figure over two options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import MERIT
from tensorcast.report.charts.rows import figure_of, finite, form_of, numbers, said, steps, title, words_of
from tensorcast.search.pareto import truths_of

if TYPE_CHECKING:
    import pandas


MOST_APART = 60
"""More cells in a row have no gap between them."""


def heatmap_chart(frame: pandas.DataFrame, x: str, y: str, value: str, good: str = "fits") -> Chart:
    """A cell a pair of values of `x` and `y`: the best `value` among the rows there that are `good`.

    A cell without such a row stays empty. `customdata` counts a cell's rows, those that have the figure.
    """
    frame = finite(frame)
    less, form = figure_of(value).less, form_of(value)
    across, up = said(frame, x), said(frame, y)
    columns, lines = steps(across), steps(up)
    best: dict[tuple[Any, Any], float] = {}
    rows: dict[tuple[Any, Any], int] = {}
    fits = truths_of(frame, good).tolist()
    for place, figure, counts in zip(zip(across, up, strict=True), numbers(frame, value).tolist(), fits, strict=True):
        if counts and figure == figure:
            best[place] = (min if less else max)(figure, best.get(place, figure))
            rows[place] = rows.get(place, 0) + 1
    data = {
        "type": "heatmap",
        "x": [str(each) for each in columns],
        "y": [str(each) for each in lines],
        "z": [[best.get((each, line)) for each in columns] for line in lines],
        "customdata": [[rows.get((each, line), 0) for each in columns] for line in lines],
        "colorscale": MERIT,
        "reversescale": less,
        "hoverongaps": False,
        "xgap": int(len(columns) <= MOST_APART),
        "ygap": int(len(lines) <= MOST_APART),
        "colorbar": {"tickformat": form.format, "ticksuffix": form.suffix, "thickness": 14},
        "hovertemplate": _hover(value),
    }
    layout: dict[str, Any] = {
        "xaxis": option_axis(x),
        "yaxis": option_axis(y),
        "height": max(260, min(700, 120 + 30 * len(lines))),
    }
    cell = f"of the rows with that {x} and {y} that {words_of(good)[0]}; empty where none do."
    layout["meta"] = f"Each cell: the {_best(value)} {title(value)} {cell}"
    return {"data": [data], "layout": layout}


def _hover(value: str) -> str:
    """Says the axes by their titles, so that it holds whatever they are."""
    form = form_of(value)
    lines = (
        "%{xaxis.title.text} %{x}, %{yaxis.title.text} %{y}",
        f"{shown(title(value))} %{{z:{form.format}}}{form.suffix}",
        f"the {_best(value)} of %{{customdata}} rows",
    )
    return "<br>".join(lines) + "<extra></extra>"


def _best(value: str) -> str:
    return "least" if figure_of(value).less else "most"


def option_axis(name: str) -> dict[str, Any]:
    return {"type": "category", "title": {"text": shown(name)}, "showgrid": False}
