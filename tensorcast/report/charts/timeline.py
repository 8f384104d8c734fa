"""When what runs: a whole step, layer after layer, and the operators of one layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tensorcast.cost.timeline import HOST
from tensorcast.report.charts import LEGEND, SECONDS_AXIS, Chart, operators, shown
from tensorcast.report.charts.palette import BOUND, NEUTRAL, SERIES
from tensorcast.units import count, seconds

LANES = ("compute", "communication")
MOST = 1000
"""Operators of a run that are drawn: models without equal layers have thousands in one."""
NARROW = 1 / 400
"""Of a chart's width: bars that are narrower in the mean have no outline."""


class Bar(NamedTuple):
    """What runs on a lane. Seconds; `hover`: what is said of it, before its time."""

    lane: str
    start: float
    time: float
    hover: str


def step_chart(estimate: Mapping[str, Any], phase: str) -> Chart:
    """All of `phase`: a bar for each layer and for what lies before and after the layers; colour: its kind.

    Of several passes that follow each other the layers of the longest, below a bar for each pass. Of two halves of a
    batch that run beside each other the layers of each.
    """
    drawn = estimate["phases"][phase]["timeline"]
    halves = [op for kind in drawn["kinds"] for op in kind["ops"] if "half" in op]
    traces = list(_halves(halves, drawn["seconds"])) if halves else [*_parts(drawn), *_runs(drawn)]
    height = 200 + 50 * (len({lane for trace in traces for lane in trace["y"]}) - 1)
    return {"data": traces, "layout": {**_layout(height), "meta": _said(phase, drawn)}}


def _parts(drawn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What follows each other, where that is more than one pass: passes alike in colour, all else by its name."""
    parts = drawn["parts"]
    if len(parts) > 1:
        names = dict.fromkeys("" if part["batch"] else part["name"] for part in parts)
        for number, name in enumerate(names):
            own = [part for part in parts if ("" if part["batch"] else part["name"]) == name]
            bars = [Bar("passes", each["start_s"], _time(each), shown(each["name"])) for each in own]
            colour = SERIES[-number % len(SERIES)] if name else NEUTRAL
            yield _trace(bars, f"{shown(name) or 'pass'}{_times(len(own))}", colour, drawn["seconds"])


def _runs(drawn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The layers of the pass that is shown, and where it waits for the host."""
    lane = "layers" if len(drawn["parts"]) > 1 else ""
    for number, kind in enumerate(drawn["kinds"]):
        runs = [run for run in drawn["runs"] if run["kind"] == kind["kind"]]
        bars = [Bar(lane, run["start_s"], _time(run), _run(run["name"])) for run in runs]
        yield _trace(bars, f"{_run(kind['name'])}{_times(len(runs))}", SERIES[number % len(SERIES)], drawn["seconds"])
    if waits := _waits(drawn):
        idle = Bar(lane, drawn["shown"]["end_s"] - waits, waits, HOST)
        yield _trace([idle], HOST, BOUND["overhead"], drawn["seconds"])


def _halves(ops: Iterable[Mapping[str, Any]], span: float) -> Iterator[dict[str, Any]]:
    """Each half's layers, from the start of its first operator to the end of its last."""
    for number in (1, 2):
        own = sorted((op for op in ops if op["half"] == number), key=lambda op: op["start_s"])
        bars = []
        for layer, group in groupby(own, key=lambda op: op["layer"]):
            inside = list(group)
            start, name = inside[0]["start_s"], "outside of the layers" if layer is None else f"layer {layer}"
            bars.append(Bar(f"half {number}", start, max(map(_end, inside)) - start, name))
        yield _trace(bars, f"half {number} of the batch", SERIES[number - 1], span)


def layer_chart(estimate: Mapping[str, Any], phase: str, kind: int) -> Chart:
    """The operators of the first layer (or other run) of a kind, on the lanes of a device; colour: what bounds them.

    Of two halves of a batch all that runs while their middle layer does; of a run with more than MOST operators those
    in its middle.
    """
    chosen = next(each for each in estimate["phases"][phase]["timeline"]["kinds"] if each["kind"] == kind)
    ops = sorted(chosen["ops"], key=lambda op: op["start_s"])
    drawn, which = _middle(ops)
    ends = [drawn[0]["start_s"], max(map(_end, drawn))] if drawn else [0.0, 0.0]
    data = []
    for bound, colour in BOUND.items():
        bars = [bar for op in drawn if op["bound"] == bound for bar in _on_lanes(op)]
        if bars:
            data.append(_trace(bars, bound, colour, ends[1] - ends[0]))
    used = {lane for trace in data for lane in trace["y"]}
    lanes = [lane for stream in LANES for lane in (stream, f"{stream} 1", f"{stream} 2") if lane in used]
    layout = _layout(160 + 50 * max(len(lanes), 2))
    layout["yaxis"] = {**layout["yaxis"], "categoryorder": "array", "categoryarray": lanes}
    if len(drawn) < len(ops):
        layout["xaxis"] = {**layout["xaxis"], "range": ends, "autorange": False}
    return {"data": data, "layout": {**layout, "meta": _said_of_layer(chosen, len(drawn), which)}}


def _middle(ops: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The operators that are drawn, and which those are where they are not all."""
    layers = sorted({op["layer"] for op in ops if op.get("layer") is not None})
    if layers:
        layer = layers[len(layers) // 2]
        inside = [op for op in ops if op["layer"] == layer]
        start, end = inside[0]["start_s"], max(map(_end, inside))
        beside = [op for op in ops if op["start_s"] < end and _end(op) > start]
        return beside, f"that run while layer {layer} of either half does"
    first = max(0, (len(ops) - MOST) // 2)
    return ops[first : first + MOST], "in its middle"


def _on_lanes(op: Mapping[str, Any]) -> list[Bar]:
    """A bar on each stream that the operator holds; those of the halves of a batch lie beside each other."""
    half = f" {op['half']}" if "half" in op else ""
    hover = "<br>".join(filter(None, (shown(op["op"]), shown(op["module"]), half and f"half{half} of the batch")))
    return [Bar(f"{lane}{half}", op["start_s"], op["time_s"], hover) for lane in LANES if lane in op["stream"]]


def _said_of_layer(kind: Mapping[str, Any], drawn: int, which: str) -> str:
    ops = kind["ops"]
    end = max(map(_end, ops), default=0.0)
    many = f", of which there are {count(kind['count'])} alike" if kind["count"] > 1 else ""
    part = f" Drawn are the {operators(drawn)} {which}." if drawn < len(ops) else ""
    return f"{kind['name'] or 'All of it'}{many}: {operators(len(ops))} in {seconds(end)}.{part}"


def _trace(bars: Sequence[Bar], name: str, color: str, span: float) -> dict[str, Any]:
    """Bars of one colour on a chart that shows `span` seconds."""
    wide = sum(bar.time for bar in bars) > NARROW * span * len(bars)
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [rounded(bar.start) for bar in bars],
        "x": [rounded(bar.time) for bar in bars],
        "y": [bar.lane for bar in bars],
        "marker": {"color": color, "line": {"width": 0.5 if wide else 0, "color": "#ffffff"}},
        "customdata": [f"{bar.hover}<br>{seconds(bar.time)}" for bar in bars],
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
        "showlegend": True,
    }


def _run(name: str) -> str:
    return shown(name) or "the phase"


def _times(n: int) -> str:
    return f" × {count(n)}" if n > 1 else ""


def _time(part: Mapping[str, Any]) -> float:
    return part["end_s"] - part["start_s"]


def _end(op: Mapping[str, Any]) -> float:
    return op["start_s"] + op["time_s"]


def _waits(drawn: Mapping[str, Any]) -> float:
    """Seconds at the end of the pass that is shown in which the device has nothing to do yet."""
    end = drawn["shown"]["end_s"]
    idle = end - max((run["end_s"] for run in drawn["runs"]), default=end)
    return idle if idle > 1e-6 * end else 0.0


def _said(phase: str, drawn: Mapping[str, Any]) -> str:
    """What of the phase is drawn."""
    what = f"All of {phase}"
    if not drawn["whole"]:
        what = f"A step of {phase} in the middle of the request, {count(drawn['shown']['past'])} tokens in the cache"
    said = [f"{what}: {seconds(drawn['seconds'])}."]
    if len(drawn["parts"]) > 1:
        name = next(part["name"] for part in drawn["parts"] if part["start_s"] == drawn["shown"]["start_s"])
        said.append(f"The layers are those of {name}: {seconds(_time(drawn['shown']))}.")
    if waits := _waits(drawn):
        said.append(f"For {seconds(waits)} of a pass the device waits for the host to start its kernels.")
    return " ".join(said)
