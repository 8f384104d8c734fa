"""Rows of a search as charts take them: which columns are options and which figures, values, axes and hovers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorcast.errors import InputError
from tensorcast.report.charts import shown
from tensorcast.report.facts import label
from tensorcast.report.tables.columns import row_column
from tensorcast.search.axes.ranges import NONE
from tensorcast.search.evaluation.figures import BYTES, METRICS, NUMBER, RATE, SECONDS, SHARE, Figure
from tensorcast.search.pareto import check_column, numbers_of

if TYPE_CHECKING:
    import pandas

ENDS = ("fits", "reason")
WORDS = {"fits": ("fit", "do not fit"), "meets_limits": ("meet the limits", "miss the limits")}
"""Of the rows of which such a column is true, and of the others."""


class Form(NamedTuple):
    """How a chart writes a figure: times `scale`, in d3's format, with `suffix`."""

    scale: float = 1.0
    format: str = ",.4~r"
    suffix: str = ""


FORMS = {
    SECONDS: Form(1.0, ".3~s", "s"), BYTES: Form(2.0**-30, ",.4~r", " GiB"), SHARE: Form(1.0, ".1%"),
    NUMBER: Form(1.0, ",d"), RATE: Form(),
}  # fmt: skip


def figure_of(name: str) -> Figure:
    """A column of one's own is a number of which more is better."""
    return METRICS.get(name, Figure("", ""))


def title(name: str) -> str:
    """A figure as people call it; an option, or a column of one's own, as it is called."""
    return label(name, METRICS[name].unit) if name in METRICS else name


def words_of(good: str) -> tuple[str, str]:
    """What rows do of which the column is true, and what the others do."""
    return WORDS.get(good, (f"are {good}", f"are not {good}"))


def form_of(name: str) -> Form:
    return FORMS.get(figure_of(name).unit, Form())


def charted(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Rows that a user has made, as charts and pages take them. InputError: two columns of one name.

    Names are texts, named levels of the index are columns, values that are lists or mappings are texts, and a reason
    that a file left empty is "". The frame itself stays as it is.
    """
    from pandas.api.types import is_hashable, is_object_dtype

    columns = [*map(str, frame.columns)]
    levels = [name for name in frame.index.names if name is not None and str(name) not in columns]
    rows = frame.reset_index(level=levels) if levels else frame
    rows = rows.set_axis([*map(str, rows.columns)], axis="columns")
    twice = rows.columns[rows.columns.duplicated()]
    if len(twice):
        raise InputError(f"two columns have the name {twice[0]!r}; rename one")
    lists = [name for name in rows.columns if is_object_dtype(rows[name]) and not rows[name].map(is_hashable).all()]
    texts = {name: rows[name].astype(str) for name in lists}
    if "reason" in rows:
        texts["reason"] = rows["reason"].astype(object).where(rows["reason"].notna(), "")
    return rows.assign(**texts)


def figures_of(frame: pandas.DataFrame) -> list[str]:
    """The columns with figures, as far as a row has them: those of `FIGURES`, and numbers of one's own."""
    return [name for name in frame.columns if _is_figure(frame, name) and frame[name].notna().any()]


def finite(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The rows without those figures that are not finite."""
    infinite = {name: np.isinf(numbers_of(frame, name)) for name in figures_of(frame)}
    return frame.assign(**{name: frame[name].mask(where) for name, where in infinite.items() if where.any()})


def _is_figure(frame: pandas.DataFrame, name: str) -> bool:
    from pandas.api import types

    if name in METRICS:
        return True
    return not is_known(name) and types.is_numeric_dtype(frame[name]) and not types.is_bool_dtype(frame[name])


def is_known(name: str) -> bool:
    """Whether it is a column of `sweep`, `optimize` or `compare`."""
    try:
        row_column(name)
    except LookupError:
        return False
    return True


def varying_of(frame: pandas.DataFrame) -> list[str]:
    """The columns that tell rows from each other: options, and texts of one's own, that are not the same in all."""
    # Of a refused row nobody knows the work where it was not asked for: that is no other value.
    done = frame[frame["reason"].astype(str) == ""] if "reason" in frame else frame
    return [
        name
        for name in frame.columns
        if name not in ENDS and not _is_figure(frame, name)
        if frame[name].nunique() > 1 or done[name].nunique(dropna=False) > 1
    ]


def numbers(frame: pandas.DataFrame, name: str) -> np.ndarray:
    """A figure as a chart shows it, scaled; NaN where there is none."""
    return numbers_of(frame, name) * form_of(name).scale


def signed(frame: pandas.DataFrame, name: str) -> np.ndarray:
    """A figure with its sign such that less is better; NaN where there is none."""
    return numbers_of(frame, name) * (1 if figure_of(name).less else -1)


def said(frame: pandas.DataFrame, name: str) -> list[Any]:
    """An option as plain values: numbers stay, NONE where there is none; texts escaped, as `shown`."""
    check_column(frame, name)
    values, missing = frame[name], frame[name].isna().tolist()
    return [
        NONE
        if none
        else value
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else shown(str(value))
        for value, none in zip(values.tolist(), missing, strict=True)
    ]


def steps(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers rising, texts in the order they come in, and what has none last."""
    found = dict.fromkeys(values)
    return [
        *sorted(v for v in found if not isinstance(v, str)),
        *(v for v in found if isinstance(v, str) and v != NONE),
        *(v for v in found if v == NONE),
    ]


def axis(name: str) -> dict[str, Any]:
    """A Plotly axis of a figure."""
    form, figure = form_of(name), figure_of(name)
    better = "less is better" if figure.less else "more is better"
    return {
        "title": {"text": f"{shown(title(name))} ({better})"}, "ticksuffix": form.suffix,
        "tickformat": form.format.replace(".3", "").replace(".4", ""), "hoverformat": form.format,
    }  # fmt: skip


def hover(names: Sequence[str]) -> str:
    """A line for each column of `customdata`."""
    return "<br>".join(_line(name, number) for number, name in enumerate(names))


def _line(name: str, number: int) -> str:
    form = f":{form_of(name).format}}}{form_of(name).suffix}" if name in METRICS else "}"
    return f"{shown(title(name))} %{{customdata[{number}]{form}"


def details(frame: pandas.DataFrame, names: Sequence[str]) -> list[list[Any]]:
    """The columns `names` of each row, for a hover."""
    columns = [plain(numbers(frame, name)) if name in METRICS else said(frame, name) for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def plain(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON has them, None for NaN."""
    return [None if value != value else value for value in values.tolist()]
