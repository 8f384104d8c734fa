"""What the page shows of a configuration: the figures of `tc.simulate`, none of its own."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorcast.errors import InputError
from tensorcast.estimate import Estimate, simulate
from tensorcast.report.data.json import strict
from tensorcast.report.files import FORMATS, TRACE
from tensorcast.ui.ahead import Options, neighbours
from tensorcast.ui.controls import SCALES, arguments
from tensorcast.ui.tracer import Tracer

LOOKED_AT = ("decode", "denoise")
"""Phases that most of a request's time goes to; of other models the first is shown."""
TOTAL = "total_bytes"
Controls = Mapping[str, str | bool]
"""Name → text, True for a switch."""
MEMORY = (TOTAL, "capacity_bytes", "max_batch", "max_context")


DOWNLOADS = {
    "HTML": "html", "JSON": "json", "CSV": "csv", "Markdown": "markdown", "Parquet": "parquet", "Tables": "tables",
    "Perfetto": "trace",
}  # fmt: skip
"""What a report is called on the page → its format: `Estimate.to_FORMAT` writes it."""


class Untraced(Exception):
    """An answer needs a model traced."""


class Answers:
    """Answers to what pages ask. `given`: arguments of `tc.simulate` that hold for all: which user code counts."""

    def __init__(self, given: Options, tracer: Tracer) -> None:
        self.given, self.tracer = dict(given), tracer
        self._one = threading.Lock()
        self._retraced: set[tuple[str, str]] = set()  # (model, control) a move of which had to be traced

    def page(
        self, options: Controls, more: str, view: str, *, moved: str = "", wanted: Callable[[], bool] = lambda: True
    ) -> dict[str, Any]:
        """Everything that the page shows; raises as `arguments` and `tc.simulate`.

        `view`: the phase whose operators are drawn, where there is one so named. `moved`: the control whose other
        values may be asked next. `wanted`: whether somebody still waits for the answer.
        """
        asked = self._arguments(options, more)
        figures = self._estimate(asked, wanted, moved).to_dict(timelines=False)
        self.tracer.expect(neighbours(asked, moved, traced=(asked.get("model", ""), moved) in self._retraced))
        phases = list(figures["phases"])
        view = next((phase for phase in (view, *LOOKED_AT) if phase in phases), phases[0])
        model, hardware, memory = (figures[name] for name in ("model", "hardware", "memory"))
        answer = {
            "title": f"{model['name']} on {hardware['devices']} × {hardware['name']}",
            "command": figures["command"],
            "figures": list(_shown(figures)),
            "fits": memory["fits"],
            "suggestions": memory.get("suggestions", []),
            "warnings": [*(f"{op}: not costed" for op in figures["uncosted_ops"]), *figures["warnings"]],
            "used": _used(figures),
            "phases": phases,
            "view": view,
            "charts": _charts(figures, view),
        }
        return strict(answer)

    def download(self, kind: str, options: Controls, more: str) -> tuple[str, str, bytes]:
        """(file name, media type, content) of a report, one of `DOWNLOADS`."""
        if kind not in DOWNLOADS:
            raise InputError(f"no report {kind!r}; there are {', '.join(DOWNLOADS)}")
        found = self._estimate(self._arguments(options, more))
        form = TRACE if DOWNLOADS[kind] == "trace" else FORMATS["simulate"][DOWNLOADS[kind]]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"report{form.suffix}"
            getattr(found, f"to_{DOWNLOADS[kind]}")(str(path))
            content = path.read_bytes()
        figures = found.to_dict(timelines=False)
        name = f"{figures['model']['name']}-{figures['hardware']['devices']}x-{figures['hardware']['name']}"
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('._')}{form.suffix}", form.media_type, content

    def _arguments(self, options: Controls, more: str) -> dict[str, Any]:
        return {**arguments(options, more), **self.given}

    def _estimate(self, asked: Options, wanted: Callable[[], bool] = lambda: True, moved: str = "") -> Estimate:
        try:
            return self._simulated(asked, _untraced)
        except Untraced:
            self.tracer.trace(asked, wanted)
            self._retraced.add((asked.get("model", ""), moved))
            return self._simulated(asked)

    def _simulated(self, asked: Options, progress: Any = None) -> Estimate:
        with self._one:  # a model of the user's own is built in this process, and not by two threads at a time
            return simulate(**asked, progress=progress)


def _untraced(text: str, share: float | None) -> None:
    """The progress of a simulation reports only where a model has to be traced, before torch is imported."""
    raise Untraced


def _shown(figures: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every metric, and what of the memory is compared: `less` is better, None for neither; `drawn`: as a bar too."""
    from tensorcast.report.facts import label
    from tensorcast.report.terminal.compare import LABELS, NO_DIRECTION
    from tensorcast.report.terminal.sweep import FORM
    from tensorcast.search.evaluation.figures import FIGURES
    from tensorcast.units import count

    memory = {name: figures["memory"].get(name) for name in MEMORY}
    for name, value in {**figures["metrics"], **memory}.items():
        if value is not None:
            figure = FIGURES[name]
            yield {
                "name": name,
                "label": LABELS.get(name) or label(name, figure.unit),
                "value": value,
                "text": FORM.get(figure.unit, count)(value),
                "meaning": figure.meaning,
                "less": None if name in NO_DIRECTION else figure.less,
                "drawn": name == TOTAL or name not in memory,
            }


def _used(figures: Mapping[str, Any]) -> dict[str, str]:
    """Option → the value that it has, asked or by default."""
    quant = figures["quant"]
    formats = {
        "quant": " + ".join(quant["modules"]) or "none",
        "kv_cache_dtype": quant["kv_cache"],
        "attention_quant": quant["attention"],
    }
    plain = {**figures["plan"], **figures["workload"], **formats}
    told = {name: value for name, value in plain.items() if isinstance(value, (str, int, float))}
    # A 0 that nobody could have given stands for "none".
    return {name: f"{value}" for name, value in told.items() if value or value in SCALES.get(name, ())}


def _charts(figures: Mapping[str, Any], view: str) -> dict[str, Any]:
    from tensorcast.report.charts.bounds import bounds_chart
    from tensorcast.report.charts.communication import communication_chart
    from tensorcast.report.charts.memory import memory_chart
    from tensorcast.report.charts.roofline import roofline_chart
    from tensorcast.report.charts.treemap import treemap_chart

    return {
        "memory": memory_chart(figures),
        "bounds": bounds_chart(figures),
        "treemap": treemap_chart(figures, view),
        "roofline": roofline_chart(figures, view),
        "communication": communication_chart(figures),
    }
