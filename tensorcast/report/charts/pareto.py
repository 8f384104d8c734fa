"""Configurations by two figures, and the front: those that no other beats in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import MERIT, SERIES
from tensorcast.report.charts.rows import (
    axis,
    details,
    figure_of,
    figures_of,
    finite,
    form_of,
    hover,
    numbers,
    plain,
    said,
    signed,
    steps,
    title,
    varying_of,
    words_of,
)
from tensorcast.search.pareto import front, truths_of

if TYPE_CHECKING:
    import pandas

SHOWN = (
    "tokens_per_s_per_device", "images_per_s_per_device", "requests_per_s", "ttft_loaded_s", "tpot_loaded_s", "ttft_s",
    "tpot_s", "image_latency_s", "step_time_s", "tokens_per_s_per_user", "total_bytes", "request_latency_s",
)  # fmt: skip
"""Figures that a hover says, as far as there are such."""
FRONT = "Pareto front"
SYMBOLS = ("circle", "diamond", "x", "triangle-up", "square")
"""Of values that share a colour, because there are more of them."""


def pareto_chart(
    frame: pandas.DataFrame,
    x: str,
    y: str,
    colour: str | None = None,
    names: Sequence[str] | None = None,
    good: str = "fits",
) -> Chart:
    """A point a row that has both figures, and the front of those that are `good`, a column of truths.

    `colour`: a column; its values are told apart, more numbers than there are colours by a scale. `names`: what a hover
    says; None: what varies, and main figures. The last two traces are the rows that are not good, which wait in the
    legend where others are, and the front.
    """
    frame = finite(frame)
    if names is None:
        names = [*varying_of(frame), *(name for name in figures_of(frame) if name in SHOWN)]
    across, up = numbers(frame, x), numbers(frame, y)
    there, fits = ~(np.isnan(across) | np.isnan(up)), truths_of(frame, good)
    drawn, rest = np.flatnonzero(there & fits), np.flatnonzero(there & ~fits)
    best = drawn[front(-signed(frame, x)[drawn], -signed(frame, y)[drawn])]
    best = best[np.argsort(across[best], kind="stable")]
    fit, unfit = words_of(good)

    def trace(name: str, at: np.ndarray, **style: Any) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": across[at].tolist(), "y": up[at].tolist(),
            "customdata": details(frame.iloc[at], names), "hovertemplate": f"{hover(names)}<extra></extra>", **style,
        }  # fmt: skip

    groups = _told_apart(frame, colour, drawn, fit) if colour else [(fit, drawn, {})]
    ring = {"size": 9, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": "#D55E00"}}
    data = [
        *(trace(name, at, marker={"size": 5, "opacity": 0.8, **marker}) for name, at, marker in groups),
        trace(unfit, rest, marker={"size": 5, "color": "#999999"}, visible="legendonly" if len(drawn) else True),
        trace(FRONT, best, mode="lines+markers", line={"dash": "dot", "color": "#D55E00", "width": 1.5}, marker=ring),
    ]
    words = f"{len(best):,} of the {len(drawn):,} rows that {fit} are on the Pareto front of {title(x)} and {title(y)}."
    layout = {
        "xaxis": axis(x), "yaxis": axis(y), "height": 460, "hovermode": "closest", "colorway": list(SERIES),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "showlegend": True,
        "meta": words if len(drawn) else f"No rows {fit}, so there is no Pareto front; these {unfit}.",
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _told_apart(
    frame: pandas.DataFrame, colour: str, rows: np.ndarray, all_of_them: str
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """(name, places, marker) of the `rows` with each value of a column; of many numbers of all, with a scale."""
    label = np.array(said(frame, colour), dtype=object)
    values = steps(label)
    if len(values) > len(SERIES) and not any(isinstance(value, str) and value for value in values):
        form = form_of(colour)
        bar = {"title": {"text": shown(colour)}, "tickformat": form.format, "ticksuffix": form.suffix, "thickness": 14}
        shades = {"colorscale": MERIT, "reversescale": figure_of(colour).less, "colorbar": bar}
        yield all_of_them, rows, {"color": plain(numbers(frame, colour)[rows]), **shades}
        return
    for number, value in enumerate(values):
        symbol = SYMBOLS[number // len(SERIES) % len(SYMBOLS)]
        yield f"{shown(colour)} {value}", rows[label[rows] == value], {"symbol": symbol}
