"""What bounds the time of each phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts import LEGEND, Chart
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
        "height": 120 + 50 * len(names),
        "xaxis": {"tickformat": ".0%", "range": [0, 1]},
        "margin": {"l": 10, "r": 30, "t": 30, "b": 10},  # room for 100 %
        "yaxis": {"autorange": "reversed"},
        "legend": LEGEND,
        "meta": " ".join(_said(name, phases[name]["time_by_bound_s"]) for name in names),
    }
    return {"data": data, "layout": layout}


def _said(phase: str, times: Mapping[str, float]) -> str:
    bound = max(times, key=times.__getitem__)
    return f"{percent(times[bound] / sum(times.values()))} of the operators' time in {phase} is bound by {bound}."
