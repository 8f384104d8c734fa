"""When what runs: a whole step, layer after layer, and the operators of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts import LEGEND, SECONDS_AXIS, Chart, operators, shown
from tensorcast.report.charts.palette import BOUND, SERIES
from tensorcast.units import count, seconds

LANES = ("compute", "communication")
MOST = 400
"""Operators of a run that are drawn: two halves of a batch have thousands."""
MANY = 200
"""Bars of a colour that are too narrow for an outline."""


def step_chart(estimate: Mapping[str, Any], phase: str) -> Chart:
    """One pass of `phase`: a bar for each layer and for what lies before and after the layers; colour: its kind."""
    drawn = estimate["phases"][phase]["timeline"]
    start = drawn["shown"]["start_s"]
    data = []
    for number, kind in enumerate(drawn["kinds"]):
        runs = [run for run in drawn["runs"] if run["kind"] == kind["kind"]]
        times = [run["end_s"] - run["start_s"] for run in runs]
        data.append(
            _bars(
                [run["start_s"] - start for run in runs],
                times,
                [""] * len(runs),
                [f"{_run(run['name'])}<br>{seconds(time)}" for run, time in zip(runs, times, strict=True)],
                name=f"{_run(kind['name'])}{f' × {count(len(runs))}' if len(runs) > 1 else ''}",
                color=SERIES[number % len(SERIES)],
            )
        )
    return {"data": data, "layout": {**_layout(200), "meta": _said(phase, drawn)}}


def layer_chart(estimate: Mapping[str, Any], phase: str, kind: int) -> Chart:
    """The operators of the first layer (or other run) of a kind, on the lanes of a device; colour: what bounds them.

    Of a run with more than MOST operators those in its middle.
    """
    chosen = next(each for each in estimate["phases"][phase]["timeline"]["kinds"] if each["kind"] == kind)
    ops = sorted(chosen["ops"], key=lambda op: op["start_s"])
    first = max(0, (len(ops) - MOST) // 2)
    drawn = ops[first : first + MOST]
    data = []
    for bound, colour in BOUND.items():
        placed = [(op, lane) for op in drawn if op["bound"] == bound for lane in LANES if lane in op["stream"]]
        if placed:
            data.append(
                _bars(
                    [op["start_s"] for op, _ in placed],
                    [op["time_s"] for op, _ in placed],
                    [lane for _, lane in placed],
                    [f"{shown(op['op'])}<br>{shown(op['module'])}<br>{seconds(op['time_s'])}" for op, _ in placed],
                    name=bound,
                    color=colour,
                )
            )
    layout = _layout(260)
    if len(drawn) < len(ops):
        span = [drawn[0]["start_s"], max(op["start_s"] + op["time_s"] for op in drawn)]
        layout["xaxis"] = {**layout["xaxis"], "range": span, "autorange": False}
    return {"data": data, "layout": {**layout, "meta": _said_of_layer(chosen, len(drawn))}}


def _said_of_layer(kind: Mapping[str, Any], drawn: int) -> str:
    ops = kind["ops"]
    end = max((op["start_s"] + op["time_s"] for op in ops), default=0.0)
    many = f", of which there are {count(kind['count'])} alike" if kind["count"] > 1 else ""
    part = f" The {operators(drawn)} in its middle are drawn." if drawn < len(ops) else ""
    return f"{kind['name'] or 'All of it'}{many}: {operators(len(ops))} in {seconds(end)}.{part}"


def _bars(starts: list[float], times: list[float], lanes: list[str], hover: list[str], *, name: str, color: str):
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [rounded(start) for start in starts],
        "x": [rounded(time) for time in times],
        "y": lanes,
        "marker": {"color": color, "line": {"width": 0.5 if len(times) < MANY else 0, "color": "#ffffff"}},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def rounded(value: float) -> float:
    """A second on a chart: six digits, for there may be thousands."""
    return float(f"{value:.6g}")


def _layout(height: int) -> dict[str, Any]:
    return {
        "barmode": "overlay",
        "bargap": 0.2,
        "height": height,
        "xaxis": SECONDS_AXIS,
        "yaxis": {"type": "category", "autorange": "reversed"},
        "legend": LEGEND,
    }


def _run(name: str) -> str:
    return shown(name) or "the phase"


def _said(phase: str, drawn: Mapping[str, Any]) -> str:
    """What of the phase is drawn."""
    shown_s, all_s = seconds(drawn["shown"]["end_s"] - drawn["shown"]["start_s"]), seconds(drawn["seconds"])
    what = f"All of {phase}"
    if not drawn["whole"]:
        what = f"A step of {phase} in the middle of the request, {count(drawn['shown']['past'])} tokens in the cache"
    if drawn["passes"] > 1:
        return f"{what}: {all_s}. Drawn is the longest of its {count(drawn['passes'])} passes: {shown_s}."
    return f"{what}: {shown_s}."
