"""The report of a sweep on a terminal: the best rows or the Pareto front, how many fit, what is refused and why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.text import Text

from tensorcast.report.terminal import printed
from tensorcast.report.terminal.lines import crop_left, crop_right, facts, heading, remarks, wrapped
from tensorcast.report.terminal.spark import spark_lines
from tensorcast.search.evaluation.figures import BYTES, FIGURES, RATE, SECONDS, SHARE
from tensorcast.search.frame import column_of
from tensorcast.search.summary import Summary
from tensorcast.units import bytes_, count, percent, rate, seconds

if TYPE_CHECKING:
    import pandas

SHORT = {
    "tokens_per_s": "tok/s", "tokens_per_s_per_device": "tok/s/dev", "tokens_per_s_per_user": "tok/s/user",
    "ttft_s": "TTFT", "tpot_s": "TPOT", "total_bytes": "memory", "request_latency_s": "latency",
    "ttft_loaded_s": "TTFT load", "tpot_loaded_s": "TPOT load", "requests_per_s": "req/s",
    "images_per_s_per_device": "img/s/dev", "images_per_s": "img/s", "input_len": "input", "output_len": "output",
    "kv_cache_dtype": "KV", "gpu_memory_utilization": "util",
}  # fmt: skip
SHOWN = (
    "tokens_per_s_per_device", "images_per_s_per_device", "requests_per_s", "ttft_loaded_s", "tpot_loaded_s", "ttft_s",
    "tpot_s", "step_time_s", "tokens_per_s_per_user", "total_bytes", "request_latency_s",
)  # fmt: skip
"""Figures beside the one that rows are sorted by, as long as there is room."""
WIDEST_TEXT, REASONS = 28, 5
UNSAID = ("1", "auto", "None", "<NA>", "nan", "False")
FORM: dict[str, Callable[[Any], str]] = {
    SECONDS: seconds, BYTES: bytes_, RATE: lambda value: rate(value, "").rstrip(), SHARE: percent,
}  # fmt: skip


def print_sweep(summary: Summary, varying: Sequence[str], *, top: int = 10, file: IO[str] | None = None) -> None:
    """Print the report; `varying`: the options that differ between configurations."""
    printed(lambda width, plain: sweep_lines(summary, varying, width, top, ascii_only=plain), file or sys.stdout)


def sweep_lines(
    summary: Summary, varying: Sequence[str], width: int, top: int, *, ascii_only: bool = False
) -> list[Text]:
    """The report as lines of at most `width` characters."""
    sorted_by, best = summary.best()
    lines = [
        heading(f"{summary.rows:,} configuration{'s' if summary.rows > 1 else ''}")
        + Text(_counts(summary), style="not bold")
    ]
    if best is not None and top:
        names = [column_of(name) for name in varying]
        lines += [*facts("all have", same(best, names), width), Text("")]
        lines += wrapped(_title(summary, sorted_by, len(best), min(top, len(best))), width, "bold")
        lines += table_lines(best.head(top), names, _figures(summary, sorted_by), width)
    for figure in summary.pareto or (sorted_by,):
        lines += _moves(summary, figure, width, ascii_only)
    told = [f"{many:,} x {reason}" for reason, many in summary.reasons.most_common(REASONS)]
    if len(summary.reasons) > REASONS:
        told.append(f"and {len(summary.reasons) - REASONS:,} more reasons")
    section = remarks(f"Refused: {summary.refused:,}", told, width, "yellow")
    return [*lines, *([Text("")] if section else []), *section]


def _moves(summary: Summary, figure: str, width: int, ascii_only: bool) -> list[Text]:
    """How the best of a figure moves along each option that is a number and takes several values."""
    curves = {SHORT.get(name, name): tuple(ridge) for name, ridge in summary.along.ridges(figure).items()}
    form, less = _form(figure), FIGURES[figure].less
    lines = spark_lines(curves, form, width, less=less, one_scale=False, ascii_only=ascii_only)
    return [Text(""), heading(f"The best {figure} along"), *lines] if lines else []


def table_lines(rows: pandas.DataFrame, names: Sequence[str], figures: Sequence[str], width: int) -> list[Text]:
    """A line a row: the columns `names`, and as many of `figures` as have values and room.

    Where the names leave no room for a figure they stand below it, as long as they are.
    """
    shown = [name for name in figures if name in rows and rows[name].notna().any()]
    columns, values = [_column(rows, name) for name in names], [_column(rows, name) for name in shown]
    apart = bool(names) and _across([*columns, *values[:1]]) > width
    table = [] if apart else columns
    for column in values:
        if _across([*table, column]) <= width:
            table.append(column)
    lines = [Text("  ".join(cells).rstrip()) for cells in zip(*table, strict=True)]
    if lines:
        lines[0].stylize("dim")
    if apart:
        named = [_named(row, names, width) for row in rows.to_dict("records")]
        return [*lines[:1], *(each for line, name in zip(lines[1:], named, strict=True) for each in (line, *name))]
    texts = {str(value): None for name in names for value in rows[name].tolist()}
    return lines + facts("in full", [text for text in texts if len(text) > WIDEST_TEXT], width)


def _across(columns: Sequence[Sequence[str]]) -> int:
    """Characters of a line of a table."""
    return sum(len(each[0]) + 2 for each in columns) - 2


def _named(row: Mapping[str, Any], names: Sequence[str], width: int) -> list[Text]:
    """What tells a row from the others, below its figures."""
    return wrapped(f"  {' · '.join(f'{name} {row[name]}' for name in names)}", width)


def same(rows: pandas.DataFrame, varying: Sequence[str]) -> list[str]:
    """Inputs that all configurations have, but degrees of 1 and what is "auto"."""
    inputs = [name for name in rows.columns if name not in (*FIGURES, *varying, "fits", "reason")]
    first = {name: str(rows[name].iloc[0]) for name in inputs if rows[name].nunique(dropna=False) == 1}
    return [f"{name} {value}" for name, value in first.items() if name == "batch" or value not in UNSAID]


def _counts(summary: Summary) -> str:
    return f": {summary.fit:,} fit, {summary.unfit:,} do not, {summary.refused:,} refused"


def _title(summary: Summary, sorted_by: str, rows: int, shown: int) -> str:
    if (
        sorted_by == "total_bytes"
        and summary.sort != sorted_by
        and not (summary.pareto and sorted_by in summary.pareto)
    ):
        return "None fits; those that need least memory:"
    if summary.pareto:
        return f"Pareto front of {summary.pareto[0]} and {summary.pareto[1]}: {rows:,} rows" + (
            f", the first {shown:,}:" if shown < rows else ":"
        )
    return f"Best by {sorted_by}:"


def _figures(summary: Summary, sorted_by: str) -> list[str]:
    first = summary.pareto or (sorted_by,)
    return [*dict.fromkeys((*first, *SHOWN))]


def _column(rows: pandas.DataFrame, name: str) -> list[str]:
    """Title and cells of one width: numbers to the right, texts to the left."""
    values = [None if missing else value for value, missing in zip(rows[name].tolist(), rows[name].isna(), strict=True)]
    form = _form(name)
    cells = ["" if value is None else form(value) for value in values]
    title = SHORT.get(name, name)
    width = max(map(len, [title, *cells]))
    right = name in FIGURES or all(isinstance(value, (int, float, type(None))) for value in values)
    return [cell.rjust(width) if right else cell.ljust(width) for cell in [title, *cells]]


def _form(name: str) -> Callable[[Any], str]:
    if name in FIGURES:
        return FORM.get(FIGURES[name].unit, count)
    return _cropped


def _cropped(value: Any) -> str:
    """At most `WIDEST_TEXT` characters: of a path those at its end."""
    text = str(value)
    return (crop_left if "/" in text else crop_right)(text, WIDEST_TEXT)
