"""Reports of `sweep`, `optimize` and `compare` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorcast.options import KNOWN, flag
from tensorcast.report.data.csv import flat
from tensorcast.report.markdown import commands, document, escaped, grid, heading, remarks, section
from tensorcast.report.tables import Table
from tensorcast.report.tables import columns as c
from tensorcast.report.tables.columns import Column, row_column
from tensorcast.report.terminal.compare import TOP, evenly
from tensorcast.report.terminal.optimize import DEGREES, GOALS, assumptions, other_flags, plan_flags
from tensorcast.report.terminal.sweep import SHOWN, same
from tensorcast.search.comparison.alternatives import METRICS
from tensorcast.search.comparison.curve import UNFIT
from tensorcast.search.evaluation.figures import COSTS
from tensorcast.search.frame import column_of
from tensorcast.search.optimization.optimum import HALVES
from tensorcast.units import count, percent, seconds

if TYPE_CHECKING:
    from tensorcast.search.comparison.compare import Comparison
    from tensorcast.search.optimization.optimum import Optimum
    from tensorcast.search.summary import Summary

Row = Mapping[str, Any]
RANGE = (Column("from", "count", ""), Column("to", "count", ""))


def sweep_markdown(summary: Summary, varying: Sequence[str], top: int = 10, command: str | None = None) -> str:
    """How many configurations there are of each fate, and the `top` best, or of a Pareto front."""
    counts = [f"{count(summary.fit)} fit", f"{count(summary.unfit)} do not", f"{count(summary.refused)} refused"]
    name, best = summary.best()
    names = [column_of(each) for each in varying]
    facts, front = {"of these": counts}, []
    if best is not None and top:
        facts["all have"] = same(best, names)
        rows = best.head(top).astype(object).where(best.head(top).notna(), None).to_dict("records")
        first = summary.pareto or (name,)
        title = f"Pareto front of {' and '.join(summary.pareto)}" if summary.pareto else f"Best by {name}"
        if name == "total_bytes" and name not in (summary.sort, *(summary.pareto or ())):
            title = "None fits; those that need least memory"
        title += f", the first {count(top)} of {count(len(best))}" if summary.pareto and top < len(best) else ""
        front = section(_rows(title, rows, [*names, *dict.fromkeys((*first, *SHOWN))]))
    return document(
        heading(f"Sweep of {count(summary.rows)} configurations", facts),
        front,
        remarks("Refused", (f"{count(many)} x {reason}" for reason, many in summary.reasons.most_common())),
        commands(command),
    )


def optimum_markdown(found: Optimum, command: str | None = None, start: str | None = None) -> str:
    """The best deployment, what binds it, and the plans behind it; or the nearest miss."""
    content = found.to_dict()
    row, plans = content["best"] or content["nearest"], content["plans"]
    verdict = "Best of" if content["best"] else "Nothing meets the limits; nearest of"
    ranked = [flat(each) for each in (row, *content["runners_up"])]
    return document(
        heading(f"{verdict} {content['model']} on {content['devices']} x {row['hw']}", _optimum_facts(content, row)),
        section(_figures("Figures", row)),
        *(section(_figures(f"Instances for {half}", row[half])) for half in HALVES if half in row),
        section(_rows("Plans, the best first", ranked, [*_telling(ranked), *SHOWN, *COSTS, "miss", "binding"])),
        remarks(
            "How many plans",
            [f"{count(plans[name])} {name.replace('_', ' ')}" for name in ("considered", "priced", "ruled_out")],
        ),
        remarks("Refused", (f"{count(many)} x {reason}" for reason, many in plans["refused"].items())),
        remarks("Assumptions", assumptions(content, row)),
        remarks("Warnings", content["warnings"]),
        commands(command, start),
    )


def _telling(rows: Sequence[Row]) -> list[str]:
    """The options that tell rows from each other: degrees and batches, and what is not the same for all."""
    always = (*DEGREES, "batch", "ratio", "instances")
    apart = [name for name in ("hw", *KNOWN) if len({str(row.get(name)) for row in rows}) > 1]
    bases = {name: name.removeprefix("prefill_").removeprefix("decode_") for name in rows[0]}
    return [name for name, base in bases.items() if base in always or name in apart]


def _optimum_facts(content: Row, row: Row) -> dict[str, Sequence[str]]:
    limits, lead = content["limits"], content["lead"]
    asked = [f"TTFT {seconds(limits['ttft_s'])}" if limits["ttft_s"] else ""]
    asked += [f"TPOT {seconds(limits['tpot_s'])}" if limits["tpot_s"] else ""]
    asked += [f"{percent(limits['memory_headroom'])} of the memory free" if limits["memory_headroom"] else ""]
    sides = {half: row[half] for half in HALVES if half in row} or {"plan": row}
    return {
        "search": [f"--mode {content['mode']}", f"by {GOALS[content['objective']]}"],
        "limits": asked,
        **{
            name: [plan_flags(side), f"batch {count(side['batch'])}", _copies(row, side)]
            for name, side in sides.items()
        },
        "options": [*other_flags(row)],
        "binds": [content["binding"]],
        "lead": [f"{percent(lead)} ahead of the next plan"] if lead is not None else [],
        "would do": content["what_would"],
    }


def _copies(row: Row, side: Row) -> str:
    many = row["copies"] * side.get("instances", 1)
    return f"{count(many)} x {count(side['instance_devices'])} devices"


def comparison_markdown(found: Comparison, command: str | None = None, top: int = TOP) -> str:
    """Figures side by side, `top` points of the curve, and who leads where."""
    content = found.to_dict()
    rows = content["alternatives"]
    told = [
        {"name": each["name"], "devices": each["devices"], "fits": each["fits"], "reason": each["reason"]}
        for each in rows
    ]
    told = [row | each["work"] for row, each in zip(told, rows, strict=True)]
    columns = (
        Column("name", "", ""),
        *map(row_column, ("devices", "batch", "input_len", "output_len", "fits", "reason")),
    )
    return document(
        heading(f"{len(rows)} alternatives", {"ratios to": [content["ratios_to"]]}),
        section(Table("alternatives", "Alternatives", columns, told)),
        *_side_by_side(rows),
        *(_curve(content["curve"], top) if content["curve"] else ()),
        remarks("Warnings", content["warnings"]),
        commands(command),
    )


def _side_by_side(rows: Sequence[Row]) -> Iterable[list[str]]:
    """A table of figures, a column an alternative; and one of their ratios."""
    names = [name for name in METRICS if any(name in row["figures"] for row in rows)]
    figures = [[name, *(_said(name, row["figures"].get(name)) for row in rows)] for name in names]
    yield _beside("Figures", "figure", rows, figures)
    ratios = [[name, *(_times(row["ratios"].get(name)) for row in rows)] for name in names]
    yield _beside("Ratios", "figure", rows, ratios)


def _beside(title: str, first: str, rows: Sequence[Row], cells: Sequence[Sequence[str]]) -> list[str]:
    titles = [first, *(row["name"] for row in rows)]
    return [f"## {escaped(title)}", "", *grid(titles, cells, [False, *(True for _ in rows)])] if cells else []


def _curve(curve: Row, top: int) -> Iterable[list[str]]:
    """The figure at `top` of the values asked for, who leads, break-even points, and where one does not count."""
    along, metric = flag(curve["along"])[2:], curve["metric"]
    better = "less" if curve["less_is_better"] else "more"
    rows = [{"name": name} for name in curve["figures"]]
    points = evenly([*zip(curve["values"], *curve["figures"].values(), strict=True)], top)
    unfit = [[each for each in held if each["state"] == UNFIT] for held in curve["standings"].values()]

    def cell(at: int, value: float | None, where: Sequence[Row]) -> str:
        return _said(metric, value) + "*" * any(each["first"] <= at <= each["last"] for each in where)

    cells = [[count(at), *(cell(at, *each) for each in zip(values, unfit, strict=True))] for at, *values in points]
    yield _beside(f"{metric} along {along} ({better} is better; * does not fit)", along, rows, cells)
    leads = [
        {"from": e["first"], "to": e["last"], "best": e["best"], "times": _times(e["most"])} for e in curve["leads"]
    ]
    columns = (*RANGE, Column("best", "", "", c.TEXTS), Column("times", "", "better than the worst, at most"))
    yield section(Table("leads", f"Who leads along {along}", columns, leads))
    even = [{"alternatives": e["alternatives"], "break_even": e["break_even"] or "none"} for e in curve["pairs"]]
    columns = (Column("alternatives", "", "", c.TEXTS), Column("break_even", "", "", c.COUNTS))
    yield section(Table("pairs", f"Break-even points along {along}", columns, even))
    standings = [
        {"name": name, "from": e["first"], "to": e["last"], "state": e["state"], "reason": e["reason"]}
        for name, held in curve["standings"].items()
        for e in held
    ]
    columns = (Column("name", "", ""), *RANGE, Column("state", "", ""), Column("reason", "", ""))
    yield section(Table("standings", f"Where each fits along {along}", columns, standings))


def _figures(title: str, row: Row) -> Table:
    """A row's figures with their units and meanings."""
    columns = {name: row_column(name) for name in row if name in METRICS or name.startswith("kv_transfer")}
    rows = [
        {"figure": name, "value": row[name], "unit": each.unit, "meaning": each.meaning}
        for name, each in columns.items()
        if row[name] is not None
    ]
    return Table("figures", title, c.FIGURE, rows)


def _rows(title: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    return Table("rows", title, tuple(map(row_column, dict.fromkeys(names))), rows)


def _said(name: str, value: Any) -> str:
    return "" if value is None or value != value else c.shown(value, METRICS[name].unit)


def _times(ratio: float | None) -> str:
    return "" if ratio is None or ratio != ratio else f"{ratio:.3g}"
