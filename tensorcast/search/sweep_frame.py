"""The rows of a sweep: a pandas DataFrame that shows figures as people read them, and draws them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas

from tensorcast.errors import InputError
from tensorcast.report.charts import shown
from tensorcast.report.notebook.plots import figure, known
from tensorcast.search.evaluation.figures import BEST

if TYPE_CHECKING:
    import os

    from plotly.graph_objects import Figure

MOST_DRAWN = 20_000
"""Rows of a plot with a mark for each: more make a notebook that no browser opens."""


class SweepFrame(pandas.DataFrame):
    """What `tc.sweep` gives, and what is made of it by filtering, sorting, `tc.pareto` …; columns: search/frame.py.

    `SweepFrame(frame)` makes one of any frame with such columns, one that was read from a file, say. Plots take the
    rows with true `fits`; named levels of the index are columns to them. They raise InputError for a column that is not
    there, and where Plotly is not installed.
    """

    @property
    def _constructor(self) -> type[SweepFrame]:
        return SweepFrame

    def plot_pareto(self, x: str | None = None, y: str | None = None, colour: str | None = None) -> Figure:
        """Rows by two figures, and the front that no other beats in both; None: the usual of what the rows have.

        Axes are in seconds, GiB and rates a second. `colour`: a column whose values are told apart; of more than eight
        numbers by a scale. InputError for more than MOST_DRAWN rows, and as the class says.
        """
        from tensorcast.report.charts.pareto import pareto_chart
        from tensorcast.report.pages.explorer import ACROSS

        rows, figures = self._charted(drawn=True)
        y = _chosen(y, BEST, figures)
        x = _chosen(x, [name for name in ACROSS if name != y], figures)
        if colour is not None:
            colour = known("column", colour, rows.columns)
        return figure(pareto_chart(rows, x, y, colour), f"{shown(y)} over {shown(x)}")

    def plot_heatmap(self, x: str, y: str, value: str | None = None) -> Figure:
        """The best `value`, a figure, of the rows at each pair of two options; None: the usual of what there is.

        Best is least of times and bytes, most of all else. A pair without a row that fits is an empty cell; the hover
        says how many rows there are. InputError as the class says.
        """
        from tensorcast.report.charts.heatmap import heatmap_chart

        rows, figures = self._charted()
        value = _chosen(value, BEST, figures)
        x, y = (known("column", name, rows.columns) for name in (x, y))
        title = f"{shown(value)} over {shown(x)} and {shown(y)}"
        return figure(heatmap_chart(rows, x, y, value), title)

    def plot_parallel(self, colour: str | None = None) -> Figure:
        """A line a row through options and main figures; `colour`: the figure that colours them, lighter is better.

        Options are those that differ between rows, figures those that all rows have. InputError for more than
        MOST_DRAWN rows, and as the class says.
        """
        from tensorcast.report.charts.parallel import parallel_chart

        rows, figures = self._charted(drawn=True)
        colour = _chosen(colour, BEST, figures)
        return figure(parallel_chart(rows, colour), f"configurations, coloured by {shown(colour)}")

    def to_report(self, path: str | os.PathLike) -> None:
        """Write the page of the rows, one HTML file that needs no network; InputError when it cannot be written."""
        from tensorcast.cli.output import write
        from tensorcast.report.pages import sweep_page

        rows, _ = self._charted()
        write(str(path), sweep_page(rows), "to_report")

    def _repr_html_(self) -> str | None:
        if not pandas.get_option("display.notebook_repr_html"):
            return None
        from tensorcast.report.notebook.cells import rows_cell

        return rows_cell(self)

    def _charted(self, drawn: bool = False) -> tuple[pandas.DataFrame, list[str]]:
        """The rows as charts take them, and the columns with figures.

        InputError: no figure, no `fits`, two columns of one name, or more rows than can be `drawn`.
        """
        from tensorcast.report.charts.rows import charted, figures_of

        rows = charted(pandas.DataFrame(self))
        known("column", "fits", rows.columns)
        if drawn and len(self) > MOST_DRAWN:
            more = "filter it, take tc.pareto of it, or draw plot_heatmap"
            raise InputError(
                f"a plot has a mark for each of at most {MOST_DRAWN:,} rows, this has {len(self):,}; {more}"
            )
        if not (figures := figures_of(rows)):
            raise InputError("no column has a figure to draw")
        return rows, figures


def _chosen(name: str | None, usual: Iterable[str], figures: list[str]) -> str:
    """The figure that is asked for, else the first of the usual ones that there is, else any."""
    return known("figure", name, figures) if name is not None else next((n for n in usual if n in figures), figures[0])
