"""The pages of the verbs: which template, and the charts in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorcast.report.pages.html import render

if TYPE_CHECKING:
    import pandas

    from tensorcast.report.pages.sample import Sample
    from tensorcast.search.comparison.compare import Comparison
    from tensorcast.search.optimization.optimum import Optimum


def simulate_page(estimate: Mapping[str, Any]) -> str:
    """The report of one estimate, `Estimate.to_dict()`, as one HTML file; InputError for an error in a template."""
    from tensorcast.report.pages.simulated import simulated

    figures, context = simulated(estimate)
    return render("simulate.html", figures, **context)


def sweep_page(
    frame: pandas.DataFrame,
    varying: Sequence[str] | None = None,
    sort: str | None = None,
    x: str | None = None,
    y: str | None = None,
    command: str | None = None,
    *,
    counted: Mapping[str, Any] | None = None,
    sample: Sample | None = None,
) -> str:
    """The rows of `tc.sweep` as one HTML file; InputError for a column that is not there, or an error in a template.

    `varying`: the options that differ between rows; `sort`: the figure that they are compared by; `x`, `y`: those of
    the Pareto front that is shown first; None: what suits the rows. `command`: what reproduces them. Where the frame
    holds some of a sweep's rows, `sample` says which, and `counted`, `Summary.to_dict`, what all of them are.
    """
    from tensorcast.report.charts.rows import finite, varying_of
    from tensorcast.report.pages.explorer import explorer
    from tensorcast.report.pages.sample import few
    from tensorcast.report.pages.swept import counts, swept
    from tensorcast.search.pareto import check_column

    frame = finite(frame)
    for name in filter(None, ("fits", "reason", sort, x, y, *(varying or ()))):
        check_column(frame, name)
    if sample is None:
        counted = counts(frame)
        frame, sample = few(frame, *filter(None, (sort, x, y)), options=varying or varying_of(frame), ranked=sort)
    found = explorer(frame, varying=varying, sort=sort, x=x, y=y, sample=sample)
    context = swept(frame, found, counted)
    more = {"verb": "sweep", "explorer": found, "command": command, "sample": sample}
    return render("sweep.html", found.charts, **more, **context)


def optimize_page(found: Optimum, command: str | None = None, start: str | None = None) -> str:
    """An optimum as one HTML file. `start`: what starts its best plan; InputError as `sweep_page`."""
    from tensorcast.report.charts.limits import limits_chart
    from tensorcast.report.pages.explorer import explorer
    from tensorcast.report.pages.optimized import GOOD, WORTH, optimized, rows_of, varying

    frame = rows_of(found)
    rows = explorer(frame, varying=varying(frame), sort=WORTH[found.asked["objective"]], good=GOOD)
    figures = {"limits": limits_chart(found.to_dict()), **rows.charts}
    more = {"verb": "optimize", "explorer": rows, "command": command, "start": start, "sample": None}
    return render("optimize.html", figures, **more, **optimized(found))


def compare_page(found: Comparison, command: str | None = None) -> str:
    """A comparison as one HTML file; InputError as `sweep_page`."""
    from tensorcast.report.charts.curve import curve_chart
    from tensorcast.report.pages.compared import compared, rows_of, varying
    from tensorcast.report.pages.explorer import explorer
    from tensorcast.report.pages.sample import few

    frame, sample = few(rows_of(found))
    curve = {} if found.curve is None else {"curve": curve_chart(found.curve, found.names)}
    rows = explorer(frame, varying=varying(found), sort=found.curve and found.curve.metric, sample=sample)
    more = {"verb": "compare", "explorer": rows, "command": command, "sample": sample}
    return render("compare.html", curve | rows.charts, **more, **compared(found))
