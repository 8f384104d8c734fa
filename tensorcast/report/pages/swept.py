"""What the page of a sweep says beside its charts: how many fit, the winner and the runners-up, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.charts.rows import figure_of, is_known, signed, title
from tensorcast.report.facts import shortened
from tensorcast.report.pages.explorer import Explorer
from tensorcast.report.tables import Table
from tensorcast.report.tables.columns import Column, row_column, shown
from tensorcast.report.terminal.sweep import same
from tensorcast.search.axes.ranges import NONE
from tensorcast.search.pareto import truths_of

if TYPE_CHECKING:
    import pandas

TOP = 10


def swept(frame: pandas.DataFrame, found: Explorer, counted: Mapping[str, Any]) -> dict[str, Any]:
    """Context of sweep.html. `counted`: `Summary.to_dict`, of all rows."""
    winners = best(frame, found.sort)
    columns = [known_column(name) for name in found.main]
    fits = bool(len(winners)) and bool(winners["fits"].iloc[0])
    context = {
        "title": f"{_names(frame, 'model')} on {_names(frame, 'hw')}",
        "counted": counted, "winner": [], "cards": [], "best": None, "same": [],
        "best_title": f"Best by {title(found.sort)}" if fits else "None fits; what needs least memory",
        "refused": refused(counted), "meanings": meanings(found.figures),
    }  # fmt: skip
    if not len(winners):
        return context
    rows = records(winners, [column.name for column in columns])
    told = [column for column in columns if column.name in found.figures and rows[0].get(column.name) is not None]
    return context | {
        "winner": [(name, NONE if rows[0][name] is None else rows[0][name]) for name in found.varying],
        "cards": [(title(each.name), shown(rows[0][each.name], each.unit)) for each in told],
        "best": Table("best", _title(fits, len(rows)), tuple(columns), rows),
        "same": same(winners, found.varying),
    }


def _title(fits: bool, rows: int) -> str:
    if not fits:
        return "What needs least memory"
    return "The winner and the runners-up" if rows > 1 else "The winner"


def counts(frame: pandas.DataFrame) -> dict[str, Any]:
    """As `Summary.to_dict`, of a frame."""
    reasons = frame["reason"].astype(str)
    reasons = reasons[reasons != ""].value_counts()
    fits = truths_of(frame, "fits")
    refused = int(reasons.sum())
    fit = int(fits.sum())
    told = [{"reason": reason, "rows": int(rows)} for reason, rows in reasons.items()]
    return {
        "configurations": len(frame), "fit": fit, "unfit": len(frame) - refused - fit, "refused": refused,
        "reasons": told,
    }  # fmt: skip


def best(frame: pandas.DataFrame, sort: str | None) -> pandas.DataFrame:
    """The rows that fit, best first; where none does, those that need least memory. No more than TOP."""
    fits = truths_of(frame, "fits")
    if not fits.any():
        sort = "total_bytes" if "total_bytes" in frame else sort
    rows = frame[fits] if fits.any() else frame[frame["fits"].notna()]
    if sort is None:
        return rows.head(0)
    values = signed(rows, sort)
    order = np.argsort(values, kind="stable")
    return rows.iloc[order[~np.isnan(values[order])][:TOP]]


def records(rows: pandas.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as plain values, None where there is none."""
    cells = {name: _plain(rows[name]) for name in names}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _plain(values: pandas.Series) -> list[Any]:
    return [None if none else value for value, none in zip(values.tolist(), values.isna().tolist(), strict=True)]


def refused(counted: Mapping[str, Any]) -> Table | None:
    """Reasons and how many rows each refuses."""
    columns = (Column("rows", "count", "configurations"), Column("reason", "", "as `simulate` says it"))
    return Table("refused", "Refused", columns, counted["reasons"]) if counted["reasons"] else None


def meanings(figures: Sequence[str]) -> Table:
    """What each figure is."""
    columns = (
        Column("figure", "", "column of the CSV"), Column("unit", "", "SI"), Column("meaning", "", "per device"),
        Column("better", "", "which is better"),
    )  # fmt: skip
    known = {name: figure_of(name) for name in figures}
    rows = [
        {"figure": name, "unit": each.unit, "meaning": each.meaning, "better": "less" if each.less else "more"}
        for name, each in known.items()
    ]
    return Table("meanings", "Figures", columns, rows)


def known_column(name: str) -> Column:
    """As `columns.row_column`, of a frame that may have columns of one's own."""
    return row_column(name) if is_known(name) else Column(name, "", "a column of one's own", always=False)


def _names(frame: pandas.DataFrame, name: str) -> str:
    names = [str(value) for value in dict.fromkeys(frame[name].dropna().tolist())] if name in frame else []
    return shortened(names, most=3) or "a sweep"
