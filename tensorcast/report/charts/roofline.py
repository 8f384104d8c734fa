"""How far each operator is from what the device can do: work per second over work per byte of device memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tensorcast.report.charts import LEGEND, Chart, operators, shown
from tensorcast.report.charts.palette import BOUND
from tensorcast.units import bandwidth, count, flops, percent, rate, seconds

VECTOR = "vector"
SMALLEST, LARGEST = 6, 40


class Point(NamedTuple):
    """An operator's row, the engine that does most of its work ("vector" or a number format), FLOP per byte, FLOP/s."""

    row: Mapping[str, Any]
    engine: str
    intensity: float
    rate: float


def roofline_chart(estimate: Mapping[str, Any], phase: str) -> Chart:
    """A point an operator, log-log; lines: the memory's bandwidth, and the peak of each engine that is used."""
    ops, hardware = estimate["phases"][phase]["ops"], estimate["hardware"]
    points = [point for point in map(point_of, ops) if point is not None]
    peaks = peaks_of(hardware, points)
    total = sum(op["time_s"] for op in ops)
    data = [*_roofs(peaks, points, hardware["memory_bandwidth"]), *_clouds(points, total)]
    layout = {
        "height": 480,
        "xaxis": {
            "type": "log",
            "title": {"text": "FLOP per byte of device memory"},
            "exponentformat": "power",
            "dtick": 1,
        },
        "yaxis": {"type": "log", "title": {"text": "FLOP/s"}, "tickformat": "~s"},
        "legend": LEGEND,
        "meta": _said(phase, points, len(ops) - len(points)),
    }
    return {"data": data, "layout": layout}


def point_of(op: Mapping[str, Any]) -> Point | None:
    """Where an operator lies; None for one without FLOP, bytes or time, which has no place.

    Counted is the engine's work that it is there for: the products where it has some, else the rest.
    """
    work = op["matrix_flops"] or op["vector_flops"]
    moved = op["read_bytes"] + op["write_bytes"]
    if not (work and moved and op["time_s"]):
        return None
    return Point(op, op["math"] if op["matrix_flops"] else VECTOR, work / moved, work / op["time_s"])


def peaks_of(hardware: Mapping[str, Any], points: list[Point]) -> dict[str, float]:
    """FLOP/s that each engine in use can do; that of vectors: in their fastest number format."""
    peaks = {**hardware["peak_flops"], VECTOR: max(hardware["vector_flops"].values())}
    return {engine: peaks[engine] for engine in dict.fromkeys(point.engine for point in points)}


def _roofs(peaks: Mapping[str, float], points: list[Point], speed: float) -> Iterator[dict[str, Any]]:
    """For each engine the least of bandwidth x intensity and its peak."""
    if not points:
        return
    left = min(point.intensity for point in points) / 3
    right = max(*(point.intensity for point in points), *(peak / speed for peak in peaks.values())) * 10
    for engine, peak in peaks.items():
        ridge = peak / speed
        start = min(left, ridge / 3)
        said = f"{shown(engine)}: {flops(peak)}, {bandwidth(speed)} of memory"
        yield {
            "type": "scatter",
            "mode": "lines+text",
            "x": [start, ridge, right],
            "y": [start * speed, peak, peak],
            "text": ["", "", f"{shown(engine)} {flops(peak)}"],
            "textposition": "top left",
            "line": {"color": "#808080", "width": 2, "dash": "dot" if engine == VECTOR else "solid"},
            "showlegend": False,
            "hovertemplate": f"{said}<extra></extra>",
        }


def _clouds(points: list[Point], total: float) -> Iterator[dict[str, Any]]:
    for bound, colour in BOUND.items():
        chosen = [point for point in points if point.row["bound"] == bound]
        if chosen:
            shares = [point.row["time_s"] / total for point in chosen]
            yield {
                "type": "scatter",
                "mode": "markers",
                "name": bound,
                "x": [point.intensity for point in chosen],
                "y": [point.rate for point in chosen],
                "customdata": [_hover(point, share) for point, share in zip(chosen, shares, strict=True)],
                "marker": {
                    "color": colour,
                    "opacity": 0.8,
                    "line": {"width": 1, "color": "#ffffff"},
                    "size": [round(SMALLEST + (LARGEST - SMALLEST) * share**0.5, 1) for share in shares],
                },
                "hovertemplate": "%{customdata}<extra>%{fullData.name}</extra>",
            }


def _hover(point: Point, share: float) -> str:
    row = point.row
    does = f"{rate(point.intensity, 'FLOP/B')}, {flops(point.rate)} ({shown(point.engine)})"
    lines = (shown(row["op"]), shown(row["module"]), f"{seconds(row['time_s'])}, {percent(share)}", does)
    return "<br>".join((*lines, f"{count(row['count'])} calls"))


def _said(phase: str, points: list[Point], left_out: int) -> str:
    out = f" {operators(left_out)} without FLOP or without traffic of device memory (collectives, copies) left out."
    if not points:
        return f"No operator of {phase} has both FLOP and memory traffic.{out if left_out else ''}"
    row, _, intensity, speed = max(points, key=lambda point: point.row["time_s"])
    said = (
        f"{operators(len(points))} of {phase}, a larger circle is more time. That with most, {row['op']} in "
        f"{row['module'] or 'the model'}, does {flops(speed)} at {rate(intensity, 'FLOP per byte')}."
    )
    return said + (out if left_out else "")
