"""Pareto fronts: the rows that no other row beats in both of two figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorcast.errors import InputError, there_is
from tensorcast.search.evaluation.figures import METRICS

if TYPE_CHECKING:
    import pandas


def pareto(
    df: pandas.DataFrame,
    x: str = "tokens_per_s_per_user",
    y: str = "tokens_per_s_per_device",
    maximize: tuple[bool, bool] | None = None,
    by: str | Sequence[str] | None = None,
    fit_only: bool = True,
) -> pandas.DataFrame:
    """The rows of `df` that are not dominated, sorted by `x` from low to high.

    A row is dominated when another is at least as good in `x` and `y` and better in one. Of rows with equal x and y
    the first stays. `maximize`: whether more is better of x, of y; None: as the figure says (times and bytes: less is
    better; rates and columns of your own: more). `by`: columns; each combination of their values has a front of its
    own, one after the other. Rows without figures never count; those that do not fit only with `fit_only=False`.
    InputError for a column that is not there or holds no numbers.
    """
    keys = [by] if isinstance(by, str) else list(by or ())
    for name in (x, y, *keys):
        check_column(df, name)
    if fit_only:
        check_column(df, "fits", "; fit_only=False takes frames without it")
    good = truths_of(df, "fits") if fit_only else np.ones(len(df), dtype=bool)
    more = (more_is_better(x), more_is_better(y)) if maximize is None else _two(maximize)
    signed = [numbers_of(df, name) * (1 if best else -1) for name, best in zip((x, y), more, strict=True)]
    rows = np.flatnonzero(good & ~np.isnan(signed[0]) & ~np.isnan(signed[1]))
    found = []
    for part in _parts(df, keys, rows):
        best = part[front(signed[0][part], signed[1][part])]
        found.append(best if more[0] else best[::-1])
    return df.iloc[np.concatenate(found) if found else rows]


def front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positions of the points that no other dominates, more being better, x rising; of equal points the first.

    >>> front(np.array([1.0, 2.0, 3.0, 1.0]), np.array([5.0, 6.0, 1.0, 5.0])).tolist()
    [1, 2]
    """
    order = np.lexsort((-y, -x))  # stable: equal points stay in their order
    # From the best x down, a point is on the front where its y is above all before it.
    height = y[order]
    above = np.ones(len(height), dtype=bool)
    above[1:] = height[1:] > np.maximum.accumulate(height)[:-1]
    return order[above][::-1]


def more_is_better(name: str) -> bool:
    """Of a figure; of any other column, yes."""
    return not (name in METRICS and METRICS[name].less)


def _two(maximize: tuple[bool, bool]) -> tuple[bool, bool]:
    if not isinstance(maximize, (tuple, list)) or len(maximize) != 2 or not all(isinstance(m, bool) for m in maximize):
        raise InputError(f"maximize {maximize!r}: two truth values, for x and for y")
    return maximize[0], maximize[1]


def check_column(df: pandas.DataFrame, name: str, more: str = "") -> None:
    """InputError for a column that is not there; `more`: what it adds."""
    if name not in df.columns:
        raise InputError(f"no column {name!r}; {there_is(name, df.columns)}{more}")


def numbers_of(df: pandas.DataFrame, name: str) -> np.ndarray:
    """A column as numbers, NaN where there is none; InputError for one that is not there or holds others."""
    check_column(df, name)
    try:
        return df[name].to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise InputError(f"column {name!r} holds no numbers; give a figure such as tokens_per_s_per_device") from None


def truths_of(df: pandas.DataFrame, name: str) -> np.ndarray:
    """A column as truths, False where there is none; InputError for one that is not there or holds others."""
    check_column(df, name)
    try:
        values = df[name].to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):  # a text "False" is none: it would count as true
        values = np.full(1, 2.0)
    if not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
        raise InputError(f"column {name!r} holds no truth values: True, False, or none")
    return values == 1.0


def _parts(df: pandas.DataFrame, keys: list[str], rows: np.ndarray) -> list[np.ndarray]:
    """The positions `rows`, cut by combinations of the keys' values, in the order of their first rows."""
    if not keys:
        return [rows]
    number = df.groupby(keys, sort=False, dropna=False, observed=True).ngroup().to_numpy()[rows]
    order = np.argsort(number, kind="stable")
    return [part for part in np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1) if len(part)]
