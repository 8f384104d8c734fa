"""What notebooks show of an object: short pieces of HTML, filled in from the templates of reports/notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorcast.errors import InputError
from tensorcast.report.charts.memory import NAMES, said
from tensorcast.report.charts.palette import BOUND, MEMORY
from tensorcast.report.facts import answers, pairs, precision
from tensorcast.report.pages.html import render
from tensorcast.report.tables.columns import FORMS
from tensorcast.search.evaluation.figures import BEST, COSTS, FIGURES
from tensorcast.units import bytes_, percent, seconds

if TYPE_CHECKING:
    import pandas
    from rich.text import Text

Part = dict[str, Any]
METRICS = FIGURES | COSTS
NO_BREAK = "\u00a0"
PAGE_WIDTH = 100
"""Letters of a line of a report in a cell."""


def estimate_cell(estimate: Mapping[str, Any]) -> str:
    """The answer, memory against what there is, and what bounds the time of each phase."""
    model, hardware, memory = estimate["model"], estimate["hardware"], estimate["memory"]
    return render(
        "notebook/estimate.html",
        {},
        title=f"{model['name']} on {hardware['devices']} × {hardware['name']}",
        asked=" · ".join([*_degrees(estimate["plan"]), *precision(estimate["quant"])]),
        answers=answers(estimate),
        memory=_memory(memory),
        phases=list(_phases(estimate["phases"])),
        suggestions=memory.get("suggestions", ()),
        uncosted=[" · ".join(pairs(op)) if isinstance(op, Mapping) else op for op in estimate["uncosted_ops"]],
        warnings=estimate["warnings"],
    )


def lines_cell(lines: Sequence[Text]) -> str:
    """A report for terminals."""
    told = [{"text": line.plain, "strong": "bold" in str(line.style)} for line in lines]
    return render("notebook/lines.html", {}, lines=told)


def rows_cell(frame: pandas.DataFrame) -> str:
    """How many rows fit, the best, and the rows as pandas shows them, with figures as people read them.

    Where there are more columns than pandas shows, what all rows have is said once.
    """
    from html import escape

    from markupsafe import Markup
    from pandas import NA, DataFrame, get_option

    rows, columns = (get_option(f"display.{name}") for name in ("max_rows", "max_columns"))
    same = _same(frame) if columns and len(frame.columns) > columns and len(frame) > 1 else {}
    table = DataFrame(frame).drop(columns=[*same])
    text = table.to_html(
        # By place: where columns are left out, pandas 2 does not find them by name.
        formatters=[_form_of(name, dtype) for name, dtype in zip(table.columns, table.dtypes, strict=True)],
        max_rows=(get_option("display.min_rows") or rows) if rows and len(frame) > rows else None,
        max_cols=columns or None,
        show_dimensions=True,
        border=0,
        na_rep="",
    ).replace(f"<td>{escape(str(NA))}</td>", "<td></td>")  # which pandas writes whatever `na_rep` says
    told = [f"{name} {value}" for name, value in same.items() if value]
    return render("notebook/rows.html", {}, same=told, table=Markup(text), **_counted(frame))


def _degrees(plan: Mapping[str, Any]) -> list[str]:
    return [f"{name} {size}" for name, size in plan.items() if name == "tp" or size not in (1, None, False)]


def _memory(memory: Mapping[str, Any]) -> Part:
    """The bar of memory: as long as what there is, or what is needed, whichever is more."""
    scale = max(memory["total_bytes"], memory["capacity_bytes"])
    parts = [
        {"label": NAMES.get(key, key.removesuffix("_bytes")), "colour": colour, "share": memory[key] / scale,
         "text": bytes_(memory[key])}
        for key, colour in MEMORY.items()
        if memory.get(key)
    ]  # fmt: skip
    verdict = "fits" if memory["fits"] else "does not fit"
    return {"name": f"{verdict}: {said(memory)}", "parts": parts, "limit": memory["capacity_bytes"] / scale}


def _phases(phases: Mapping[str, Mapping[str, Any]]) -> Iterator[Part]:
    """What bounds the time of each, as shares of the time of all of its operators."""
    for name, phase in phases.items():
        times = phase["time_by_bound_s"]
        total = sum(times.values())
        parts = [
            {"label": bound, "colour": BOUND[bound], "share": time / total, "text": percent(time / total)}
            for bound, time in times.items()
            if time
        ]
        yield {"name": f"{name}, {seconds(phase['step_time_s'])} a step, bound by", "parts": parts}


def _counted(frame: pandas.DataFrame) -> dict[str, Any]:
    """How many rows fit, and the best of those; nothing for a frame that has no verdicts."""
    from tensorcast.report.charts.rows import charted, figures_of, varying_of
    from tensorcast.report.pages.swept import best, counts

    try:
        rows = charted(frame)
        counted = counts(rows) if len(rows) and {"fits", "reason"} <= {*rows.columns} else None
    except InputError:
        counted = None
    if counted is None:
        return {"counted": None, "best": "", "sort": None}
    have = figures_of(rows)
    sort = next((name for name in BEST if name in have), None)
    first = best(rows, sort).head(1)
    names = [*varying_of(rows), *([sort] if sort else [])]
    told = " · ".join(f"{name} {_value(first[name], name)}" for name in names) if len(first) else ""
    return {"counted": counted, "best": told, "sort": sort if len(first) and first["fits"].iloc[0] else None}


def _same(frame: pandas.DataFrame) -> dict[str, str]:
    """Option or figure → what all rows have of it; "" where none has one. Nothing where names are not unique."""
    from tensorcast.report.charts.rows import is_known

    names = [name for name in frame.columns if is_known(str(name))] if frame.columns.is_unique else []
    return {name: _value(frame[name], name) for name in names if frame[name].nunique(dropna=False) == 1}


def _value(values: pandas.Series, name: str) -> str:
    """The first value of a column as people read it."""
    if values.isna().iloc[0]:
        return ""
    return _form(METRICS[name].unit)(values.iloc[0]) if name in METRICS else str(values.iloc[0])


def _form_of(name: Any, dtype: Any) -> Callable[[Any], str] | None:
    """How pandas is to write a column; None for what is no figure: as it does."""
    from pandas.api.types import is_numeric_dtype

    return _form(METRICS[name].unit) if name in METRICS and is_numeric_dtype(dtype) else None


def _form(unit: str) -> Callable[[Any], str]:
    """How pandas is to write a figure, number and unit on one line; of what no unit has a prefix for, three digits."""
    from pandas import isna

    form = FORMS.get(unit, lambda number: f"{number:.3g}")
    # pandas 2 has written what is missing already, as the empty text.
    return lambda value: "" if isna(value) or value == "" else form(float(value)).replace(" ", NO_BREAK)
