"""Charts, one file an idea. A chart is a function from figures to a Plotly figure in plain dicts: {"data", "layout"}.

No plotting library is imported: the page draws the dicts in the browser, `as_figure` makes Plotly's own object of one.
Colours of text, grid and background are the page's (light and dark); those that mean something are in `palette`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Chart = dict[str, Any]


def as_figure(chart: Mapping[str, Any]):
    """The chart as a `plotly.graph_objects.Figure`; InputError where Plotly is not installed."""
    from tensorcast.errors import InputError

    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise InputError("plots need Plotly: pip install plotly") from None
    return Figure(chart)
