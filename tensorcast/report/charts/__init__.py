"""Charts, one file an idea. A chart is a function from figures to a Plotly figure in plain dicts: {"data", "layout"}.

No plotting library is imported: the page draws the dicts in the browser, `as_figure` makes Plotly's own object of one.
Colours of text, grid and background are the page's (light and dark); those that mean something are in `palette`.
`layout.meta` is the chart in words: what a page writes below it, and what is read to who cannot see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tensorcast.units import count

Chart = dict[str, Any]
LONGEST = 120
_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1000)


def as_figure(chart: Mapping[str, Any]):
    """The chart as a `plotly.graph_objects.Figure`; InputError where Plotly is not installed."""
    from tensorcast.errors import InputError

    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise InputError("plots need Plotly: pip install plotly") from None
    return Figure(chart)


def shown(name: str) -> str:
    """A name from a model or a file as charts show it: Plotly reads some tags and entities in labels. Cut when long."""
    return escape(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…", quote=False)


def operators(n: int) -> str:
    """A number of operators in words."""
    return "1 operator" if n == 1 else f"{count(n)} operators"


def byte_axis(most: float, ticks: int = 6) -> dict[str, Any]:
    """An axis from 0 to `most` bytes, with about `ticks` ticks in steps of 1024 as `units.bytes_` counts."""
    power = 0
    while power < 4 and most >= 1024 ** (power + 1):
        power += 1
    unit, name = 1024**power, ("B", "KiB", "MiB", "GiB", "TiB")[power]
    step = next((step for step in _STEPS if most / unit / step <= ticks), _STEPS[-1])
    values = range(0, int(most / unit) + step, step)
    return {
        "tickvals": [value * unit for value in values],
        "ticktext": [f"{value} {name}" if value else "0" for value in values],
    }


LEGEND = {"orientation": "h", "traceorder": "normal", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
"""Below the chart, in as many lines as its width asks for."""
SECONDS_AXIS = {"tickformat": "~s", "ticksuffix": "s", "rangemode": "tozero"}
"""An axis of seconds, with the prefix that suits: 250µs."""
