"""The report of a comparison on a terminal: figures side by side, the curve, who leads where."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from rich.text import Text

from tensorcast.options import flag
from tensorcast.report.terminal import printed
from tensorcast.report.terminal.lines import bullet, facts, heading, remarks
from tensorcast.report.terminal.spark import spark_lines
from tensorcast.report.terminal.sweep import FORM
from tensorcast.search.comparison.alternatives import LOAD, METRICS, varying
from tensorcast.search.comparison.compare import Comparison
from tensorcast.search.comparison.curve import FITS, REFUSED, Curve
from tensorcast.search.comparison.stretches import Stretch, sentence
from tensorcast.search.evaluation.figures import NUMBER
from tensorcast.search.evaluation.group import WORK
from tensorcast.search.frame import said
from tensorcast.units import NOT_A_NUMBER, count, percent, rate

LABELS = {
    "ttft_s": "TTFT", "tpot_s": "TPOT", "ttft_loaded_s": "TTFT under load", "tpot_loaded_s": "TPOT under load",
    "request_latency_s": "latency", "step_time_s": "training step",
    "tokens_per_s_per_user": "tokens/s, a user", "tokens_per_s_per_device": "tokens/s, a device",
    "tokens_per_s": "tokens/s, all", "requests_per_s": "requests/s", "images_per_s_per_device": "images/s, a device",
    "cost_per_million_tokens": "cost, 1 M tokens", "joules_per_token": "J a token", "total_bytes": "memory",
    "capacity_bytes": "memory there is", "max_batch": "largest batch",
}  # fmt: skip
"""Figures of the table, where an alternative has them."""
NO_DIRECTION = ("capacity_bytes",)
LABEL, CELL, GAP = 19, 18, 2
TOP, MOST_STRETCHES, MOST_NAMES = 12, 5, 4
"""Rows of a curve; in a sentence; alternatives whose every pair is told."""


def print_comparison(found: Comparison, *, top: int = TOP, file: IO[str] | None = None) -> None:
    """Print the report; `top`: points of the curve."""
    printed(lambda width, plain: comparison_lines(found, width, top, ascii_only=plain), file or sys.stdout)


def comparison_lines(found: Comparison, width: int, top: int = TOP, *, ascii_only: bool = False) -> list[Text]:
    """The report as lines of at most `width` characters; `top`: points of the curve."""
    letters = string.ascii_uppercase[: len(found.names)]
    title = f" (ratios to {letters[found.base]}; less, more: what is better)"
    lines = [heading(f"{len(letters)} alternatives") + Text(title, style="not bold")]
    for letter, each in zip(letters, found.alternatives, strict=True):
        devices = "" if each.devices is None else f"{each.devices:,} device{'s' if each.devices > 1 else ''}"
        lines += bullet(" · ".join(filter(None, (f"{letter}  {each.name}", devices))), width)
    lines += [Text(""), *facts("all have", same(found), width), Text(""), *_table(found, letters, width)]
    if refused := refusals(found, letters):
        lines += [Text(""), *remarks("Refused at this work", refused, width, "yellow")]
    if found.curve is not None:
        lines += [Text(""), *_curve(found.curve, letters, width, top, ascii_only)]
        lines += [Text(""), *_leads(found.curve, found.names, letters, width)]
    section = remarks("Warnings", found.warnings, width, "yellow")
    return [*lines, *([Text("")] if section else []), *section]


def refusals(found: Comparison, letters: str) -> list[str]:
    """Why alternatives have no figures at the asked work."""
    pairs = zip(letters, found.alternatives, strict=True)
    return [f"{letter}: {each.work['reason']}" for letter, each in pairs if each.work["reason"]]


def same(found: Comparison) -> list[str]:
    """What all alternatives have: options, and the work where it is the same."""
    options = [each.options for each in found.alternatives]
    apart = (*WORK, *varying(options))
    same = [f"{flag(name)[2:]} {said(value)}" for name, value in options[0].items() if name not in apart]
    work = {name: value for each in found.alternatives for name, value in each.work.items() if name in WORK}
    return same + [f"{flag(name)[2:]} {value:,}" for name, value in work.items() if name not in found.uneven]


def side_by_side(found: Comparison) -> list[list[str]]:
    """A row a figure: name, whether less or more is better, a cell an alternative; [] where none has figures."""
    each = found.alternatives
    have = [name for name in LABELS if any(name in one.work for one in each)]
    if not have:
        return []
    rows = [[flag(name)[2:], "", *(str(one.work.get(name, "-")) for one in each)] for name in found.uneven]
    for name in have:
        better = "" if name in NO_DIRECTION else "less" if METRICS[name].less else "more"
        rows.append([LABELS[name], better, *(_cell(found, number, name) for number in range(len(each)))])
    fits = [one.work.get("fits") for one in each]
    return [*rows, ["fits", "", *("-" if one is None else "yes" if one else "no" for one in fits)]]


def _table(found: Comparison, letters: str, width: int) -> list[Text]:
    """A line a figure, a column an alternative; as many columns beside each other as the width takes."""
    rows = side_by_side(found)
    across = max(1, (width - LABEL - 5) // (CELL + GAP))
    lines: list[Text] = []
    for start in range(0, len(letters) if rows else 0, across):
        end = start + across
        table = [["", "", *letters[start:end]], *([*row[:2], *row[2:][start:end]] for row in rows)]
        lines += [Text("")] * bool(lines) + [Text(_row(cells)) for cells in table]
        lines[-len(table)].stylize("dim")
    return lines


def _row(cells: Sequence[str]) -> str:
    label, better, *rest = cells
    gap = " " * GAP
    return (f"{label:<{LABEL}}{better:<5}" + "".join(gap + cell.rjust(CELL) for cell in rest)).rstrip()


def _cell(found: Comparison, number: int, name: str) -> str:
    """A figure and, but for the base, its ratio: `1.09 s  2.38x`."""
    value = found.alternatives[number].work.get(name)
    if value is None:
        return "-"
    ratio = found.ratios(number).get(name)
    shown = "" if ratio is None or number == found.base else f"{_times(ratio)}x"
    return f"{_form(name)(value)} {shown:>7}" if len(found.names) > 1 else _form(name)(value)


def evenly(values: Sequence[Any], most: int) -> list[Any]:
    """At most that many of the values, first and last among them.

    >>> evenly(range(10), 4), evenly("abc", 4)
    ([0, 3, 6, 9], ['a', 'b', 'c'])
    """
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places.tolist()]


def _curve(curve: Curve, letters: str, width: int, top: int, ascii_only: bool) -> list[Text]:
    """The metric at no more than `top` of the values asked for."""
    form, less = _form(curve.metric), "less" if curve.figure.less else "more"
    title = heading(f"{curve.metric} along {flag(curve.along)[2:]}")
    lines = [title + Text(f" ({less} is better; * does not fit)", style="not bold")]
    if curve.along == LOAD:
        lines.append(Text("That many clients at all times; all figures are those under load.", style="dim"))
    points = evenly(curve.shown, top)
    columns = [[flag(curve.along)[2:], *(f"{point:,}" for point in points)]]
    at = curve.places(np.array(points, dtype=curve.shown.dtype))
    for letter, values, fits in zip(letters, curve.values[:, at], curve.fits[:, at], strict=True):
        cells = (_point(form, *each) for each in zip(values, fits, strict=True))
        columns.append([f"{letter} ", *cells])
    lines += _beside(columns, width) if top else []
    if len(curve.shown) > 1:
        fair = curve.fair[:, curve.places(curve.shown)]
        curves = {letter: (curve.shown, values) for letter, values in zip(letters, fair, strict=True)}
        lines += [Text(""), Text("Where it fits, all on one scale:", style="dim")]
        lines += spark_lines(curves, form, width, less=curve.figure.less, one_scale=True, ascii_only=ascii_only)
    return lines


def _beside(columns: list[list[str]], width: int) -> list[Text]:
    """Columns to the right of the first; those that the width does not take, below with the first again."""
    wide = [max(map(len, column)) for column in columns]
    count = len(columns)
    while count > 2 and sum(wide[:count]) + count - 1 > width:
        count -= 1
    lines = [Text(" ".join(map(str.rjust, row, wide)).rstrip()) for row in zip(*columns[:count], strict=True)]
    lines[0].stylize("dim")
    return lines + _beside([columns[0], *columns[count:]], width) if columns[count:] else lines


def _point(form: Callable[[Any], str], value: float, fits: bool) -> str:
    if np.isnan(value):
        return "- "
    return form(value).replace(" ", "") + (" " if fits else "*")


def _leads(curve: Curve, names: Sequence[str], letters: str, width: int) -> list[Text]:
    lines = [heading("Who leads") + Text(f" ({covered(curve)})", style="not bold")]
    for text, warns in who_leads(curve, names, letters):
        lines += bullet(text, width, "yellow" if warns else "")
    if len(names) > MOST_NAMES:
        lines += bullet(f"{len(curve.pairs)} pairs: --json has them", width)
    return lines


def covered(curve: Curve) -> str:
    """The points that were looked at."""
    option = flag(curve.along)[2:]
    if curve.every_number:
        return f"every {option} from {curve.points[0]:,} to {curve.points[-1]:,}"
    return f"at the {len(curve.points):,} values given, not between"


def who_leads(curve: Curve, names: Sequence[str], letters: str, most: int = MOST_NAMES) -> Iterator[tuple[str, bool]]:
    """Who leads of all, of every two (of at most `most` alternatives), and from where on one does not count.

    With each sentence: whether it is such a warning.
    """
    if len(names) > 2:
        yield _said(curve.leads, lambda each, where: _leader(each, where, letters, alone=False)), False
    for pair in curve.pairs if len(names) <= most else ():
        own = letters if len(names) > 2 else names
        told = _said(pair.stretches, lambda each, where, own=own: _leader(each, where, own, alone=True))
        yield f"{letters[pair.first]} and {letters[pair.second]}: {told}", False
    for text, who in _standings(curve, letters).items():
        yield f"{', '.join(who)} {text}", True


def _standings(curve: Curve, letters: str) -> dict[str, list[str]]:
    """Why an alternative does not count and where, and which ones that is true of."""
    found: dict[str, list[str]] = {}
    for number, letter in enumerate(letters):
        for each in curve.standings(number):
            where = f"at {each.first:,}" if each.first == each.last else f"from {each.first:,} to {each.last:,}"
            why = f" ({each.reason})" if each.state == REFUSED else ""
            if each.state != FITS:
                found.setdefault(f"{each.state} {where}{why}", []).append(letter)
    return found


def _said(stretches: Sequence[Stretch], say: Callable[[Stretch, str], str]) -> str:
    return sentence(tuple(stretches), say, MOST_STRETCHES)


def _leader(stretch: Stretch, where: str, names: Sequence[str], alone: bool) -> str:
    """What holds on a stretch. `alone`: say so where only one alternative counts, and by how much one leads."""
    best = " and ".join(names[i] for i in stretch.best)
    if not stretch.best:
        return f"none counts {where}"
    if len(stretch.among) == 1 and alone:
        return f"only {best} counts {where}"
    if len(stretch.best) > 1:
        return f"{best} are equal {where}"
    if not alone or np.isnan(stretch.most):
        return f"{best} leads {where}"
    most = percent(stretch.most - 1) if stretch.most < 2 else f"{_times(stretch.most)}x"
    return f"{best} leads {where}, by at most {most}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.095 <= ratio < 99.5 else f"{ratio:.3g}"


def _form(name: str) -> Callable[[Any], str]:
    if METRICS[name].unit == NUMBER:
        return count
    return FORM.get(METRICS[name].unit, lambda value: rate(value, "").rstrip() if value == value else NOT_A_NUMBER)
