"""Sparklines: a curve in one line of text, a character a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.text import Text

from tensorcast.report.terminal.lines import wrapped

BLOCKS, IN_ASCII = "▁▂▃▄▅▆▇█", ".:-=+*#@"
MOST, LEAST = 40, 8
"""Characters of a line."""


def spark(values: Sequence[float], low: float, high: float, *, ascii_only: bool = False) -> str:
    """One character a value, the lowest at `low` and the highest at `high`; a dot, in ASCII a blank, for NaN.

    >>> spark([1, 2, 3, float("nan"), 8], 1, 8), spark([5, 5], 5, 5), spark([0, 7], 0, 7, ascii_only=True)
    ('▁▂▃·█', '▄▄', '.@')
    """
    marks, nothing = (IN_ASCII, " ") if ascii_only else (BLOCKS, "·")
    top = len(marks) - 1
    at = (top * (np.asarray(values) - low) / (high - low)) if high > low else np.where(np.isnan(values), np.nan, 3)
    return "".join(nothing if np.isnan(each) else marks[round(each)] for each in at)


def steps(values: np.ndarray, most: int, *, less: bool) -> np.ndarray:
    """The best of each of at most `most` stretches of neighbours, all as long as can be; NaN where there is none.

    >>> steps(np.array([1.0, 4.0, 3.0, np.nan, np.nan]), 3, less=False)
    array([ 4.,  3., nan])
    """
    best = np.fmin if less else np.fmax
    return np.array([best.reduce(part) for part in np.array_split(values, min(most, len(values)))])


def spark_lines(
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    form: Callable[[float], str],
    width: int,
    *,
    less: bool,
    one_scale: bool,
    ascii_only: bool = False,
) -> list[Text]:
    """A line a curve: name → (points, values). `one_scale`: all from the lowest to the highest value of all of them.

    Behind each, or below where there is no room, stand its first and last point, and its least and greatest value with
    where they are.
    """
    label = max(map(len, curves), default=0)
    whole = np.concatenate([values for _, values in curves.values()]) if one_scale else None
    lines = []
    for name, (points, values) in curves.items():
        told = _told(points, values, form)
        room = min(MOST, max(LEAST, width - 6 - label - len(told)))
        scale = values if whole is None else whole
        if np.isnan(values).all():
            marks = ""
        else:
            marks = spark(steps(values, room, less=less), np.nanmin(scale), np.nanmax(scale), ascii_only=ascii_only)
        line = Text(f"  {name:<{label}}  ") + Text(marks, style="cyan") + Text("  " if marks else "")
        fits = len(line) + len(told) <= width
        lines += [line + Text(told)] if fits else [line, *wrapped(f"    {told}", width)]
    return lines


def _told(points: np.ndarray, values: np.ndarray, form: Callable[[float], str]) -> str:
    """`1 to 64: from 68.7 at 1 to 2,158 at 64`."""
    span = f"{_point(points[0])} to {_point(points[-1])}"
    there = ~np.isnan(values)
    if not there.any():
        return f"{span}: none fits"
    low, high = np.nanargmin(values), np.nanargmax(values)
    if there.sum() == 1:
        return f"{span}: {form(values[low])} at {_point(points[low])} alone"
    if values[low] == values[high]:
        return f"{span}: {form(values[low])} wherever it fits"
    return (
        f"{span}: from {form(values[low])} at {_point(points[low])} to {form(values[high])} at {_point(points[high])}"
    )


def _point(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
