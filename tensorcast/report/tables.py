"""What a report shows, as tables: one source for pages, Markdown, CSV, JSON, Parquet and the documentation of them.

A table is made of the estimate's JSON (`Estimate.to_dict()`), whose names and SI units it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Column(NamedTuple):
    """`unit`: "s", "bytes", "FLOP", "1/s", "share", "count" or "" for text; `meaning`: one sentence."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A named table: what its columns are, and its rows (a missing or None value is an empty cell)."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row] = field(default=(), repr=False)


class Kind(NamedTuple):
    """A table of every estimate: its name and columns, and the rows it takes from the JSON."""

    title: str
    columns: tuple[Column, ...]
    rows: Callable[[Mapping[str, Any]], Iterable[Row]]


def _operators(estimate: Mapping[str, Any]) -> Iterable[Row]:
    for name, phase in estimate["phases"].items():
        total = sum(op["time_s"] for op in phase["ops"])
        for op in phase["ops"]:
            yield {"phase": name, **op, "share": op["time_s"] / total if total else None}


def _communication(estimate: Mapping[str, Any]) -> Iterable[Row]:
    """Operators that talk, added up by collective, ranks and tier."""
    sums: dict[tuple, dict[str, Any]] = {}
    for name, phase in estimate["phases"].items():
        for op in phase["ops"]:
            if "collective" in op:
                key = (name, op["collective"], op["ranks"], op["tier"])
                row = sums.setdefault(key, {**dict(zip(("phase", "collective", "ranks", "tier"), key, strict=True))})
                for figure in ("count", "time_s", "comm_bytes"):
                    row[figure] = row.get(figure, 0) + op[figure]
    return sums.values()


def _phases(estimate: Mapping[str, Any]) -> Iterable[Row]:
    for name, phase in estimate["phases"].items():
        by_bound = {f"{bound}_bound_s": value for bound, value in phase["time_by_bound_s"].items()}
        yield {"phase": name, **{k: v for k, v in phase.items() if not isinstance(v, (list, Mapping))}, **by_bound}


def _timeline(estimate: Mapping[str, Any]) -> Iterable[Row]:
    for name, phase in estimate["phases"].items():
        for run in phase.get("timeline", {}).get("runs", ()):
            yield {"phase": name, **run}


def _layers(estimate: Mapping[str, Any]) -> Iterable[Row]:
    for name, phase in estimate["phases"].items():
        for kind in phase.get("timeline", {}).get("kinds", ()):
            for op in kind["ops"]:
                yield {"phase": name, "kind": kind["kind"], "run": kind["name"], **op}


def _figures(section: str) -> Callable[[Mapping[str, Any]], Iterable[Row]]:
    def rows(estimate: Mapping[str, Any]) -> Iterable[Row]:
        flat = {k: v for k, v in estimate[section].items() if not isinstance(v, (list, Mapping))}
        return ({"figure": name, "value": value} for name, value in flat.items() if value is not None)

    return rows


_PHASE = Column("phase", "", "prefill, decode, chunked, denoise, train …")
_OP = Column("op", "", "operator; aten:: for those of PyTorch")
_MODULE = Column("module", "", "where in the model; * stands for every layer of a stack")
_BOUND = Column("bound", "", "what takes longest: matrix, vector, memory, communication or overhead")
_WORK = (
    Column("matrix_flops", "FLOP", "of matrix products, a multiply-add counted as 2"),
    Column("vector_flops", "FLOP", "of everything else"),
    Column("read_bytes", "bytes", "read from device memory"),
    Column("write_bytes", "bytes", "written to device memory"),
    Column("comm_bytes", "bytes", "sent to other devices"),
)
_LINK = (
    Column("collective", "", "what is done with other devices"),
    Column("ranks", "count", "devices that take part"),
    Column("tier", "", "tiers of the network that they are spread over, innermost first"),
)

TABLES: Mapping[str, Kind] = {
    "metrics": Kind(
        "Figures",
        (Column("figure", "", "name as in the JSON"), Column("value", "", "in the unit that the name ends in")),
        _figures("metrics"),
    ),
    "memory": Kind(
        "Memory per device",
        (Column("figure", "", "name as in the JSON"), Column("value", "bytes", "of the fullest device")),
        _figures("memory"),
    ),
    "phases": Kind(
        "Phases",
        (
            _PHASE,
            Column("step_time_s", "s", "of one step; of decode the mean over all output positions"),
            Column("host_time_s", "s", "that the host needs to start a step's kernels"),
            *_WORK,
            Column("mfu", "share", "of the matrix engine's peak"),
            Column("mbu", "share", "of the memory bandwidth"),
            *(Column(f"{name}_bound_s", "s", f"of operators bound by {name}")
              for name in ("matrix", "vector", "memory", "communication", "overhead")),
        ),
        _phases,
    ),
    "operators": Kind(
        "Operators",
        (
            _PHASE,
            _OP,
            _MODULE,
            Column("count", "count", "calls in a step"),
            Column("time_s", "s", "of all calls"),
            Column("share", "share", "of the time of all operators of the phase"),
            _BOUND,
            *_WORK,
            Column("math", "", "number format of the products"),
            *_LINK,
            Column("part", "", "of a training step: forward, recompute, backward …"),
        ),
        _operators,
    ),
    "communication": Kind(
        "Communication",
        (
            _PHASE,
            *_LINK,
            Column("count", "count", "calls in a step"),
            Column("time_s", "s", "of all calls"),
            Column("comm_bytes", "bytes", "sent by a device"),
        ),
        _communication,
    ),
    "steps": Kind(
        "Transformation steps",
        (
            Column("name", "", "of the nine steps, in their order"),
            Column("status", "", "applied or skipped"),
            Column("reason", "", "why, or what was done"),
            Column("matched", "count", "modules"),
        ),
        lambda estimate: estimate["steps"],
    ),
    "kernels": Kind(
        "Kernels",
        (
            Column("op", "", "operator slot"),
            Column("variant", "", "form of the operator"),
            Column("name", "", "kernel that fills the slot"),
            Column("source", "", "who chose it: asked, config, profile, hardware or default"),
            Column("slots", "count", "modules"),
        ),
        lambda estimate: estimate["kernels"],
    ),
    "assumptions": Kind(
        "What the figures rest on",
        (
            Column("figure", "", "family of kernels (number format, kernel), collective, or field of the profile"),
            Column("kind", "", "calibrated, inherited, universal, specified, measured or assumed"),
            Column("error_percent", "", "median and 90th percentile on measurements the fit did not see"),
            Column("rows", "count", "measurements fitted"),
            Column("source", "", "where the figure is from"),
        ),
        lambda estimate: estimate.get("assumptions", ()),
    ),
    "timeline": Kind(
        "Timeline of a step",
        (
            _PHASE,
            Column("name", "", "layer, or what lies before or after the layers"),
            Column("kind", "count", "runs with the same number have the same operators"),
            Column("start_s", "s", "from the start of the phase"),
            Column("end_s", "s", "from the start of the phase"),
        ),
        _timeline,
    ),
    "layers": Kind(
        "Timeline of a layer of each kind",
        (
            _PHASE,
            Column("kind", "count", "as in the timeline"),
            Column("run", "", "the first of its kind"),
            _OP,
            _MODULE,
            Column("stream", "", "compute, communication or both"),
            _BOUND,
            Column("start_s", "s", "from the start of the layer"),
            Column("time_s", "s", "of one call"),
        ),
        _layers,
    ),
}  # fmt: skip


def tables(estimate: Mapping[str, Any]) -> dict[str, Table]:
    """Every table of an estimate's JSON that has rows."""
    made = {name: Table(name, kind.title, kind.columns, list(kind.rows(estimate))) for name, kind in TABLES.items()}
    return {name: table for name, table in made.items() if table.rows}
