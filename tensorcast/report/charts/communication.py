"""What devices tell each other: time and bytes of each collective, by the tiers of the network that it crosses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import fsum
from typing import Any

from tensorcast.report.charts import LEGEND, SECONDS_AXIS, Chart, byte_axis, shown
from tensorcast.report.charts.palette import SERIES
from tensorcast.report.tables import TABLES
from tensorcast.training.update import GATHER, REDUCE
from tensorcast.units import bytes_, count, percent, seconds

NOTHING = "Devices tell each other nothing."


def communication_chart(estimate: Mapping[str, Any]) -> Chart:
    """Left the time, right the bytes that a device sends, a bar for each collective and its ranks; colour: tier."""
    rows = list(TABLES["communication"].rows(estimate))
    if not rows:
        hidden = {"visible": False}
        return {"data": [], "layout": {"height": 40, "xaxis": hidden, "yaxis": hidden, "meta": NOTHING}}
    data = []
    for number, tier in enumerate(dict.fromkeys(row["tier"] for row in rows)):
        own = [row for row in rows if row["tier"] == tier]
        for figure, axis in (("time_s", "x"), ("comm_bytes", "x2")):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": shown(tier),
                    "legendgroup": shown(tier),
                    "showlegend": axis == "x",
                    "xaxis": axis,
                    "x": [row[figure] for row in own],
                    "y": [_named(row) for row in own],
                    "marker": {"color": SERIES[number % len(SERIES)]},
                    "customdata": [
                        f"{seconds(row['time_s'])}<br>{bytes_(row['comm_bytes'])} sent by a device<br>"
                        f"{count(row['count'])} calls"
                        for row in own
                    ],
                    "hovertemplate": "%{y}: %{customdata}<extra>%{fullData.name}</extra>",
                }
            )
    most = max(row["comm_bytes"] for row in rows)
    layout = {
        "barmode": "stack",
        "height": 150 + 40 * len({_named(row) for row in rows}),
        "xaxis": {**SECONDS_AXIS, "domain": [0, 0.48], "title": {"text": "time"}, "nticks": 3, "tickangle": 0},
        "xaxis2": {**byte_axis(most, 2), "tickangle": 0, "domain": [0.52, 1], "title": {"text": "sent"}},
        "yaxis": {"autorange": "reversed"},
        "legend": LEGEND,
        "meta": _said(estimate, rows),
    }
    return {"data": data, "layout": layout}


def _named(row: Mapping[str, Any]) -> str:
    return shown(f"{row['phase']} {row['collective']} × {row['ranks']}")


def _said(estimate: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> str:
    parts = []
    for name in dict.fromkeys(row["phase"] for row in rows):
        time = fsum(row["time_s"] for row in rows if row["phase"] == name)
        total = fsum(op["time_s"] for op in estimate["phases"][name]["ops"])
        parts.append(f"{seconds(time)} in {name}, {percent(time / total if total else None)} of the operators' time")
    return " ".join([f"Collectives take {'; '.join(parts)}.", *_remarks(estimate)])


def _remarks(estimate: Mapping[str, Any]) -> Iterator[str]:
    """What of that time is not only talk, or is not a wait."""
    for name, phase in estimate["phases"].items():
        talking = [op for op in phase["ops"] if "collective" in op]
        if both := fsum(op["time_s"] for op in talking if op["matrix_flops"]):
            yield f"{seconds(both)} of that in {name} are kernels that compute at the same time."
        if hidden := phase.get("overlapped_s"):
            yield f"Operators beside each other hide {seconds(hidden)} in {name}."
        if any(op.get("part") in (REDUCE, GATHER) for op in talking):
            yield f"Of copies' {REDUCE} and {GATHER} the time that computation does not hide counts, and all bytes."
