"""What bounds the time of each phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts import Chart
from tensorcast.report.charts.palette import BOUND
from tensorcast.units import percent, seconds


def bounds_chart(estimate: Mapping[str, Any]) -> Chart:
    """A bar a phase, its time split by bound, as a share of all operators' time."""
    phases = estimate["phases"]
    names = [name for name, phase in phases.items() if sum(phase["time_by_bound_s"].values()) > 0]
    data = []
    for bound, colour in BOUND.items():
        times = [phases[name]["time_by_bound_s"][bound] for name in names]
        shares = [time / sum(phases[name]["time_by_bound_s"].values()) for time, name in zip(times, names, strict=True)]
        if any(times):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": bound,
                    "x": shares,
                    "y": names,
                    "marker": {"color": colour},
                    "customdata": [f"{seconds(t)}, {percent(s)}" for t, s in zip(times, shares, strict=True)],
                    "hovertemplate": "%{y}, %{fullData.name}: %{customdata}<extra></extra>",
                }
            )
    layout = {
        "barmode": "stack",
        "height": 80 + 60 * len(names),
        "xaxis": {"tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "traceorder": "normal"},
    }
    return {"data": data, "layout": layout}
