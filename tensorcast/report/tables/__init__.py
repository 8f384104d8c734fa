"""What a report shows, as tables: one source for pages, Markdown, CSV, JSON, Parquet and the documentation of them.

A table is made of the estimate's JSON (`Estimate.to_dict()`), whose names and SI units it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensorcast.report.tables import columns as c
from tensorcast.report.tables.columns import Column
from tensorcast.search.evaluation.figures import FIGURES

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A named table: what its columns are, and its rows (a missing or None value is an empty cell)."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row] = field(default=(), repr=False)

    @property
    def filled(self) -> tuple[Column, ...]:
        """The columns in which some row has a value, without that of the rows' own units."""
        has = {name for row in self.rows for name, value in row.items() if value not in (None, "")}
        return tuple(each for each in self.columns if each.name in has and each.name != "unit")

    def text(self, row: Row, column: Column) -> str:
        """A cell as people read it, in its column's unit or, where every row has one of its own, in that."""
        return c.shown(row.get(column.name), row["unit"] if column.name == "value" else column.unit)


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


def _timeline(of: str) -> Callable[[Mapping[str, Any]], Iterable[Row]]:
    def rows(estimate: Mapping[str, Any]) -> Iterable[Row]:
        for name, phase in estimate["phases"].items():
            for row in phase.get("timeline", {}).get(of, ()):
                yield {"phase": name, **row}

    return rows


def _layers(estimate: Mapping[str, Any]) -> Iterable[Row]:
    for name, phase in estimate["phases"].items():
        for kind in phase.get("timeline", {}).get("kinds", ()):
            for op in kind["ops"]:
                yield {"phase": name, "kind": kind["kind"], "run": kind["name"], **op}


def _figures(section: str) -> Callable[[Mapping[str, Any]], Iterable[Row]]:
    def rows(estimate: Mapping[str, Any]) -> Iterable[Row]:
        flat = {k: v for k, v in estimate[section].items() if k in FIGURES and v is not None}
        columns = {name: c.row_column(name) for name in flat}
        return (
            {"figure": k, "value": v, "unit": columns[k].unit, "meaning": columns[k].meaning} for k, v in flat.items()
        )

    return rows


TABLES: Mapping[str, Kind] = {
    "metrics": Kind("Figures", c.FIGURE, _figures("metrics")),
    "memory": Kind("Memory per device", c.FIGURE, _figures("memory")),
    "phases": Kind(
        "Phases",
        (c.PHASE, *c.STEP, *(bound._replace(name=f"{bound.name}_bound_s") for bound in c.BOUNDS)),
        _phases,
    ),
    "operators": Kind(
        "Operators",
        (c.PHASE, *c.OPERATOR[:4], c.SHARE, *c.OPERATOR[4:]),
        _operators,
    ),
    "communication": Kind(
        "Communication",
        (
            c.PHASE,
            *(each._replace(always=True) for each in c.LINK),
            *c.CALLS,
            Column("comm_bytes", "bytes", "sent by a device"),
        ),
        _communication,
    ),
    "steps": Kind("Transformation steps", c.STEPS, lambda estimate: estimate["steps"]),
    "kernels": Kind("Kernels", c.KERNEL, lambda estimate: estimate["kernels"]),
    "assumptions": Kind("What the figures rest on", c.ASSUMPTION, lambda estimate: estimate.get("assumptions", ())),
    "passes": Kind("Timeline of a phase", (c.PHASE, *c.PART), _timeline("parts")),
    "timeline": Kind("Timeline of a pass", (c.PHASE, *c.RUN), _timeline("runs")),
    "layers": Kind(
        "Timeline of a layer of each kind",
        (
            c.PHASE,
            Column("kind", "count", "as in the timeline"),
            Column("run", "", "the first of its kind"),
            *c.CALL,
        ),
        _layers,
    ),
}


def tables(estimate: Mapping[str, Any]) -> dict[str, Table]:
    """Every table of an estimate's JSON that has rows."""
    made = {name: Table(name, kind.title, kind.columns, list(kind.rows(estimate))) for name, kind in TABLES.items()}
    return {name: table for name, table in made.items() if table.rows}
