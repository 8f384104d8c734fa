"""Charts as figures of Plotly's own, for notebooks: what an estimate and a sweep's rows have as `plot_…` methods."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from tensorcast.errors import InputError, there_is
from tensorcast.report.charts import LEGEND, Chart, as_figure, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDEST = 110
"""Letters of a line below a title."""
LINE, TOP, NARROW = 18, 50, 30
"""Pixels: a line below a title, what a title takes, and what a chart has above it where it does not say."""
NO_BREAK = "\u00a0"
SIDES = {"l": 60, "r": 30, "b": 70}


def figure(chart: Chart, title: str) -> Figure:
    """The chart by itself: with a title, below it what it says in words, and margins. InputError without Plotly."""
    layout = dict(chart["layout"])
    words = [escape(line, quote=False) for line in _lines(str(layout.pop("meta", "")))]
    own = layout.get("margin", {})
    top = TOP + LINE * len(words) + own.get("t", NARROW)
    margin = SIDES | own | {"t": top}
    below = {"text": "<br>".join(words)}
    if layout.get("legend", LEGEND) != LEGEND:
        layout["legend"] = LEGEND  # above a chart there are the words
    # The heights of charts are made for a page, where margins are small and titles outside.
    layout |= {
        "title": {"text": title, "subtitle": below, "x": 0, "xref": "paper", "y": 1, "yref": "container",
                  "yanchor": "top", "pad": {"t": 20}},
        "margin": margin,
        "height": layout.get("height", 450) + top + (margin["b"] if "margin" not in chart["layout"] else 0),
    }  # fmt: skip
    return as_figure({"data": chart["data"], "layout": layout})


def _lines(text: str) -> list[str]:
    """The text in lines, in which a number and its unit stay together.

    >>> _lines("word " * 21 + "22.1 %")[1]
    '22.1 %'
    """
    lines = textwrap.wrap(re.sub(r"(?<=\d) (?=\S)", NO_BREAK, text), WIDEST)
    return [line.replace(NO_BREAK, " ") for line in lines]


class EstimatePlots:
    """The charts of an `Estimate`. `phase` None: decode where there is one, else the phase whose step takes longest.

    All raise InputError for a phase that is not there, and where Plotly is not installed.
    """

    def plot_breakdown(self, phase: str | None = None) -> Figure:
        """Where the time of a phase goes: modules, and operators in them, as areas (a treemap)."""
        from tensorcast.report.charts.treemap import treemap_chart

        estimate, name = self._drawn(phase)
        return figure(treemap_chart(estimate, name), _title(estimate, f"time of {name}"))

    def plot_roofline(self, phase: str | None = None) -> Figure:
        """How far each operator of a phase is from what the device can do: FLOP/s over FLOP per byte of memory."""
        from tensorcast.report.charts.roofline import roofline_chart

        estimate, name = self._drawn(phase)
        return figure(roofline_chart(estimate, name), _title(estimate, f"roofline of {name}"))

    def plot_timeline(self, phase: str | None = None, run: str | None = None) -> Figure:
        """When what runs: the layers of a phase, or the operators of one of them, such as `run="model.layers.3"`.

        Of a training step there is "model.layers.3, backward" too. InputError: the phase has no such run.
        """
        from tensorcast.report.charts.timeline import layer_chart, step_chart

        estimate, name = self._drawn(phase)
        if run is None:
            return figure(step_chart(estimate, name), _title(estimate, f"layers of {name}"))
        kinds = {each["name"]: each["kind"] for each in estimate["phases"][name]["timeline"]["runs"]}
        chart = layer_chart(estimate, name, kinds[known("run", run, kinds)])
        return figure(chart, _title(estimate, f"{shown(run)} in {name}"))

    def plot_bounds(self) -> Figure:
        """What bounds the time of each phase."""
        from tensorcast.report.charts.bounds import bounds_chart

        return self._whole(bounds_chart, "what bounds the time")

    def plot_memory(self) -> Figure:
        """What the memory of the fullest device holds, against what it has."""
        from tensorcast.report.charts.memory import memory_chart

        return self._whole(memory_chart, "memory of a device")

    def plot_communication(self) -> Figure:
        """Time and bytes of each collective, by the tiers of the network that it crosses."""
        from tensorcast.report.charts.communication import communication_chart

        return self._whole(communication_chart, "communication")

    def _drawn(self, phase: str | None) -> tuple[Mapping[str, Any], str]:
        """The JSON, and the phase to draw; InputError: there is no such phase."""
        estimate = self.to_dict()
        phases = estimate["phases"]
        return estimate, usual_phase(phases) if phase is None else known("phase", phase, phases)

    def _whole(self, chart: Callable[[Mapping[str, Any]], Chart], what: str) -> Figure:
        estimate = self.to_dict()
        return figure(chart(estimate), _title(estimate, what))


def usual_phase(phases: Mapping[str, Mapping[str, Any]]) -> str:
    """The phase that is shown where nobody says which.

    >>> usual_phase({"vae": {"step_time_s": 0.1}, "denoise": {"step_time_s": 0.2}, "text": {"step_time_s": 0.0}})
    'denoise'
    """
    return "decode" if "decode" in phases else max(phases, key=lambda name: phases[name]["step_time_s"])


def _title(estimate: Mapping[str, Any], what: str) -> str:
    model, hardware = estimate["model"], estimate["hardware"]
    return f"{shown(model['name'])} on {hardware['devices']} × {shown(hardware['name'])}: {what}"


def known(what: str, name: Any, names: Iterable[str]) -> str:
    """`name` as text, where it is one of `names`; InputError that says which there are."""
    names = list(names)
    if str(name) not in names:
        raise InputError(f"no {what} {name!r}; {there_is(name, names)}")
    return str(name)
