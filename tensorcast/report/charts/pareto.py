"""Configurations by two figures, and the front: those that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import SERIES
from tensorcast.report.charts.rows import (
    axis,
    details,
    figures_of,
    hover,
    numbers,
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
    "tokens_per_s_per_device", "images_per_s_per_device", "requests_per_s", "ttft_s", "tpot_s", "image_latency_s",
    "step_time_s", "tokens_per_s_per_user", "total_bytes", "request_latency_s",
)  # fmt: skip
"""Figures that a hover says, as far as there are such."""
FRONT = "Pareto front"


def pareto_chart(
    frame: pandas.DataFrame,
    x: str,
    y: str,
    colour: str | None = None,
    names: Sequence[str] | None = None,
    good: str = "fits",
) -> Chart:
    """A point a row that has both figures, and the front of those that are `good`, a column of truths.

    `colour`: an option; its values are told apart. `names`: what a hover says; None: what varies, and main figures.
    The last two traces are the rows that are not good, which wait in the legend where others are, and the front.
    """
    if names is None:
        names = [*varying_of(frame), *(name for name in figures_of(frame) if name in SHOWN)]
    across, up = numbers(frame, x), numbers(frame, y)
    there = ~(np.isnan(across) | np.isnan(up))
    fits = truths_of(frame, good)
    rows, drawn = np.arange(len(frame)), np.flatnonzero(there & fits)
    best = drawn[front(-signed(frame, x)[drawn], -signed(frame, y)[drawn])]
    best = best[np.argsort(across[best], kind="stable")]
    fit, unfit = words_of(good)
    label = np.array(said(frame, colour), dtype=object) if colour else np.full(len(frame), fit, dtype=object)
    by = f"{shown(colour)} " if colour else ""
    groups = [(f"{by}{value}", rows[there & fits & (label == value)]) for value in steps(label)]
    groups = groups or [(fit, rows[:0])]

    def trace(name: str, at: np.ndarray, **style: Any) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": across[at].tolist(), "y": up[at].tolist(),
            "customdata": details(frame.iloc[at], names), "hovertemplate": f"{hover(names)}<extra></extra>", **style,
        }  # fmt: skip

    waits = "legendonly" if len(drawn) else True
    ring = {"size": 9, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": "#D55E00"}}
    data = [
        *(trace(name, at, marker={"size": 5, "opacity": 0.8}) for name, at in groups),
        trace(unfit, rows[there & ~fits], marker={"size": 5, "color": "#999999"}, visible=waits),
        trace(FRONT, best, mode="lines+markers", line={"dash": "dot", "color": "#D55E00", "width": 1.5}, marker=ring),
    ]
    layout = {
        "xaxis": axis(x), "yaxis": axis(y), "height": 460, "hovermode": "closest", "colorway": list(SERIES),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "showlegend": True,
        "meta": f"{len(best):,} of the {len(drawn):,} rows that {fit} are on the Pareto front of {title(x)} and {title(y)}."
        if len(drawn) else f"No rows {fit}, so there is no Pareto front; these {unfit}.",
    }  # fmt: skip
    return {"data": data, "layout": layout}
