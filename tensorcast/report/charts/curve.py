"""One figure of several alternatives along one option, and where the lead changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tensorcast.options import flag
from tensorcast.report.charts import Chart, shown
from tensorcast.report.charts.palette import SERIES
from tensorcast.report.charts.rows import axis, form_of, title
from tensorcast.search.comparison.curve import Curve

MOST_POINTS = 512
"""Of a line; the values asked for and the ends of stretches are always among them."""
WIDE = 20
"""From this ratio of the last value to the first on, the axis is logarithmic."""
WHOLE = 12
"""So near to each other, first and last leave the axis with fractions unless it is told to count."""


def curve_chart(curve: Curve, names: Sequence[str]) -> Chart:
    """A line an alternative, dotted where it does not fit; an upright line where another takes the lead."""
    at = _places(curve)
    points = curve.points[at]
    form = form_of(curve.metric)
    data: list[dict[str, Any]] = []
    for number, (name, values, fits) in enumerate(
        zip(names, curve.values[:, at] * form.scale, curve.fits[:, at], strict=True)
    ):
        style = {"color": SERIES[number % len(SERIES)], "width": 2}
        hover = f"{shown(name)}<br>{flag(curve.along)[2:]} %{{x}}: %{{y:{form.format}}}{form.suffix}"
        common = {"type": "scatter", "mode": "lines+markers" if len(at) < 3 else "lines", "x": points.tolist(),
                  "legendgroup": str(number), "name": shown(name)}  # fmt: skip
        dotted = (~fits & ~np.isnan(values)).any()
        data.append({**common, "y": _where(values, fits), "line": style, "hovertemplate": f"{hover}<extra></extra>",
                     "showlegend": bool(fits.any() or not dotted)})  # fmt: skip
        if dotted:
            # The dots begin at the last point that fits, so that the line has no gap.
            more = {"line": {**style, "dash": "dot"}, "showlegend": not fits.any(), "opacity": 0.8}
            unfit = ~fits | np.append(~fits[1:], False) | np.append(False, ~fits[:-1])
            said = ["" if fit else ", does not fit" for fit in fits.tolist()]
            data.append({**common, **more, "y": _where(values, unfit), "customdata": said,
                         "hovertemplate": f"{hover}%{{customdata}}<extra></extra>"})  # fmt: skip
    upright = {"width": 1, "dash": "dash", "color": SERIES[-1]}
    lines = [
        {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": upright} for x in changes(curve)
    ]
    along = {"title": {"text": flag(curve.along)[2:]}, "hoverformat": ",d"}
    if points[-1] / points[0] >= WIDE:
        along |= {"type": "log", "dtick": np.log10(2) if points[-1] / points[0] <= 2**12 else 1}
    elif points[-1] - points[0] <= WHOLE:
        along["dtick"] = 1
    layout = {
        "xaxis": along, "yaxis": axis(curve.metric) | {"rangemode": "tozero"}, "height": 440, "shapes": lines,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "showlegend": True, "hovermode": "closest",
        "meta": f"{title(curve.metric)} along {flag(curve.along)[2:]}; dotted: does not fit; "
        "upright: the lead changes.",
    }  # fmt: skip
    return {"data": data, "layout": layout}


def changes(curve: Curve) -> list[int]:
    """The points at which another takes the lead, of those that fit."""
    led = [stretch for stretch in curve.leads if stretch.best]
    return [now.first for before, now in pairwise(led) if now.best != before.best]


def _places(curve: Curve) -> np.ndarray:
    """Positions of the points that are drawn."""
    stretches = [*curve.leads, *(each for pair in curve.pairs for each in pair.stretches)]
    ends = [point for each in stretches for point in (each.first, each.last)]
    ends += [
        point for n in range(len(curve.values)) for each in curve.standings(n) for point in (each.first, each.last)
    ]
    even = np.linspace(0, len(curve.points) - 1, min(MOST_POINTS, len(curve.points))).round().astype(int)
    return np.unique(np.concatenate((even, curve.places(curve.shown), curve.places(np.unique(ends)))))


def _where(values: np.ndarray, wanted: np.ndarray) -> list[float | None]:
    return [float(v) if w and v == v else None for v, w in zip(values.tolist(), wanted.tolist(), strict=True)]
