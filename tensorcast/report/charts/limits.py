"""What a deployment takes of each limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts import Chart
from tensorcast.report.charts.palette import LIMIT, SERIES
from tensorcast.units import bytes_, percent, rate, seconds

LONGEST = 3.0
"""Of a bar, in limits: what takes more is cut off, and its text says how much."""


def limits_chart(optimum: Mapping[str, Any]) -> Chart:
    """A bar a limit, as a share of it, of the best configuration of `Optimum.to_dict()`, or of the nearest miss."""
    row, limits = optimum["best"] or optimum["nearest"], optimum["limits"]
    room = row["capacity_bytes"] * (1 - limits["memory_headroom"])
    bars = [
        (name, row[key] / limits[key], f"{seconds(row[key])} of {seconds(limits[key])}")
        for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"))
        if limits[key] is not None
    ]
    bars.append(("memory", row["total_bytes"] / room, f"{bytes_(row['total_bytes'])} of {bytes_(room)}"))
    names, shares, told = zip(*((name, share, _said(text, share)) for name, share, text in bars), strict=True)
    data = {
        "type": "bar", "orientation": "h", "x": shares, "y": names, "text": told, "textposition": "auto",
        "insidetextanchor": "start",
        "marker": {"color": [SERIES[0] if share <= 1 else LIMIT for share in shares]},
        "customdata": [percent(share) for share in shares],
        "hovertemplate": "%{y}: %{text}, %{customdata}<extra></extra>",
    }  # fmt: skip
    line = {
        "type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": LIMIT, "width": 2},
    }  # fmt: skip
    layout = {
        "height": 80 + 45 * len(bars), "showlegend": False, "shapes": [line],
        "xaxis": {"tickformat": ".0%", "range": [0, max(1.1, min(LONGEST, 1.05 * max(shares)))]},
        "yaxis": {"autorange": "reversed", "showgrid": False},
        "meta": "; ".join(f"{name} {text}" for name, text in zip(names, told, strict=True)) + ".",
    }  # fmt: skip
    return {"data": [data], "layout": layout}


def _said(text: str, share: float) -> str:
    return text if share <= LONGEST else f"{text}: {rate(share, 'times as much')}"
