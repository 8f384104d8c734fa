"""What the memory of the fullest device holds, against what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts import LEGEND, Chart, byte_axis
from tensorcast.report.charts.palette import LIMIT, MEMORY
from tensorcast.units import bytes_, percent

NAMES = {"kv_cache_bytes": "KV cache", "activation_peak_bytes": "activations"}


def memory_chart(estimate: Mapping[str, Any]) -> Chart:
    """One bar of what is in memory, and a line where memory ends."""
    memory = estimate["memory"]
    capacity, total = memory["capacity_bytes"], memory["total_bytes"]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": NAMES.get(key, key.removesuffix("_bytes")),
            "x": [memory[key]],
            "y": [""],
            "marker": {"color": colour},
            "customdata": [f"{bytes_(memory[key])}, {percent(memory[key] / capacity)} of what may be used"],
            "hovertemplate": "%{fullData.name}: %{customdata}<extra></extra>",
        }
        for key, colour in MEMORY.items()
        if memory.get(key)
    ]
    most = max(total, capacity)
    beside = "right" if capacity > most / 2 else "left"  # where there is room for words
    layout = {
        "barmode": "stack",
        "height": 190,
        "xaxis": {"range": [0, most * 1.02], **byte_axis(most)},
        "yaxis": {"showticklabels": False},
        "legend": LEGEND,
        "shapes": [
            {"type": "line", "x0": capacity, "x1": capacity, "yref": "paper", "y0": 0, "y1": 1,
             "line": {"color": LIMIT, "width": 3}}
        ],
        "annotations": [
            {"x": capacity, "xanchor": beside, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False,
             "text": f"may be used: {bytes_(capacity)}"}
        ],
        "meta": said(memory),
    }  # fmt: skip
    return {"data": data, "layout": layout}


def said(memory: Mapping[str, Any]) -> str:
    """The bar in a sentence."""
    left = memory["capacity_bytes"] - memory["total_bytes"]
    return (
        f"{bytes_(memory['total_bytes'])} of {bytes_(memory['capacity_bytes'])} on the fullest device: "
        f"{bytes_(abs(left))} {'free' if left >= 0 else 'missing'}."
    )
