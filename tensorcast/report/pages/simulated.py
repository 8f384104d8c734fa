"""What the page of `simulate` is made of: charts, and what the template says around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tensorcast.report.charts import Chart
from tensorcast.report.charts.bounds import bounds_chart
from tensorcast.report.charts.communication import communication_chart
from tensorcast.report.charts.memory import memory_chart
from tensorcast.report.charts.roofline import roofline_chart
from tensorcast.report.charts.timeline import layer_chart, step_chart
from tensorcast.report.charts.treemap import treemap_chart
from tensorcast.report.facts import answers, facts_of
from tensorcast.report.tables import TABLES, Table, tables

Views = dict[str, list[tuple[str, str]]]
SECTIONS = {
    "answer": "Answer", "what": "Simulated", "time": "Time", "roofline": "Roofline", "memory": "Memory",
    "communication": "Communication", "timeline": "Timeline", "operators": "Operators", "steps": "Steps",
    "kernels": "Kernels", "assumptions": "Assumptions", "command": "Command",
}  # fmt: skip
"""Sections of the page and their names in its navigation."""


def simulated(estimate: Mapping[str, Any]) -> tuple[dict[str, Chart], dict[str, Any]]:
    """(id → chart, what the template is given) of `Estimate.to_dict()`."""
    order = _main_first(estimate)
    figures, drawn = _charts(estimate, order)
    made = tables(estimate)
    if "operators" in made:
        made["operators"] = _longest_first(made["operators"], order)
    there = {"timeline": drawn["step"], "command": estimate.get("command")}
    sections = [
        (name, title) for name, title in SECTIONS.items() if there.get(name, name in made or name not in TABLES)
    ]
    return figures, {
        "estimate": estimate,
        "answers": answers(estimate),
        "facts": facts_of(estimate),
        "tables": made,
        "drawn": drawn,
        "sections": sections,
    }


def _main_first(estimate: Mapping[str, Any]) -> list[str]:
    """The phase with the longest step, of denoising all steps; then the others in their order."""
    phases, work = estimate["phases"], estimate["workload"]
    times = {name: phase["step_time_s"] for name, phase in phases.items()}
    if work["phase"] in times:
        times[work["phase"]] *= work.get("steps") or 1
    return list(dict.fromkeys((max(times, key=times.__getitem__), *phases)))


def _charts(estimate: Mapping[str, Any], order: Sequence[str]) -> tuple[dict[str, Chart], Views]:
    """(id → chart, place → those of which one is seen at a time, each as its id and what it is called).

    `order`: of the phases, the one that is seen at first in front.
    """
    figures = {"bounds": bounds_chart(estimate), "memory-bar": memory_chart(estimate)}
    if any("collective" in op for phase in estimate["phases"].values() for op in phase["ops"]):
        figures["collectives"] = communication_chart(estimate)
    drawn: Views = {"treemap": [], "roofline": [], "step": [], "layer": []}

    def add(place: str, id_: str, name: str, chart: Chart) -> None:
        figures[id_] = chart
        drawn[place].append((id_, name))

    for name in order:
        phase = estimate["phases"][name]
        add("treemap", f"treemap-{name}", name, treemap_chart(estimate, name))
        add("roofline", f"roofline-{name}", name, roofline_chart(estimate, name))
        if phase.get("timeline", {}).get("runs"):
            add("step", f"step-{name}", name, step_chart(estimate, name))
            for kind in sorted(phase["timeline"]["kinds"], key=_seconds, reverse=True):
                title = f"{name}: {kind['name'] or 'all of it'}" + (f" × {kind['count']}" if kind["count"] > 1 else "")
                add("layer", f"layer-{name}-{kind['kind']}", title, layer_chart(estimate, name, kind["kind"]))
    return figures, drawn


def _seconds(kind: Mapping[str, Any]) -> float:
    """Of all runs of a kind together."""
    return kind["count"] * sum(op["time_s"] for op in kind["ops"])


def _longest_first(operators: Table, order: Sequence[str]) -> Table:
    """Phase by phase, in each those that take longest first."""
    return replace(operators, rows=sorted(operators.rows, key=lambda row: (order.index(row["phase"]), -row["time_s"])))
