"""What a result can be written as: verb → format → who makes it, and the methods of answers that write it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import os


class Format(NamedTuple):
    """`maker`: module and function, (result, and those of `options` that it takes) → text or bytes; None: written
    as it is made, by a function of its own."""

    suffix: str
    media_type: str
    maker: tuple[str, str] | None
    options: tuple[str, ...] = ()


def _json(maker: str) -> Format:
    return Format(".json", "application/json", ("tensorcast.report.data.json", maker))


def _csv(module: str, maker: str) -> Format:
    return Format(".csv", "text/csv", (f"tensorcast.report.data.{module}", maker))


def _html(maker: str, *options: str) -> Format:
    return Format(".html", "text/html", ("tensorcast.report.pages", maker), options)


def _markdown(module: str, maker: str, *options: str) -> Format:
    return Format(".md", "text/markdown", (f"tensorcast.report.{module}", maker), options)


def _parquet(module: str, maker: str) -> Format:
    return Format(".parquet", "application/vnd.apache.parquet", (f"tensorcast.report.data.{module}", maker))


FORMATS: Mapping[str, Mapping[str, Format]] = {
    "simulate": {
        "json": _json("to_json"),
        "csv": _csv("csv", "to_csv"),
        "html": _html("simulate_page"),
        "markdown": _markdown("markdown", "to_markdown", "top"),
        "parquet": _parquet("parquet", "to_parquet"),
        "tables": Format(".zip", "application/zip", ("tensorcast.report.data.parquet", "to_tables")),
    },
    "optimize": {
        "json": _json("result_json"),
        "csv": _csv("rows", "optimum_csv"),
        "html": _html("optimize_page", "command", "start"),
        "markdown": _markdown("markdown.search", "optimum_markdown", "command", "start"),
        "parquet": _parquet("rows", "optimum_parquet"),
    },
    "compare": {
        "json": _json("result_json"),
        "csv": _csv("rows", "comparison_csv"),
        "html": _html("compare_page", "command"),
        "markdown": _markdown("markdown.search", "comparison_markdown", "command", "top"),
        "parquet": _parquet("rows", "comparison_parquet"),
    },
}
"""Results: of simulate the `Estimate.to_dict()`, of optimize the Optimum, of compare the Comparison."""
TRACE = Format(".trace.json", "application/json", None)
"""Of simulate too, by `perfetto.write_trace`."""


def content(verb: str, name: str, result: Any, **options: Any) -> str | bytes:
    """The result in one of FORMATS; InputError for an error in a template of the user's."""
    found = FORMATS[verb][name]
    module, function = found.maker
    taken = {option: options[option] for option in found.options if option in options}
    return getattr(import_module(module), function)(result, **taken)


class SearchFiles:
    """The files of an Optimum and of a Comparison, which say their `verb`. InputError when one cannot be written."""

    verb: str

    def to_html(self, path: str | os.PathLike) -> None:
        """Write the report as one HTML file that needs no network."""
        self._write("html", path)

    def to_markdown(self, path: str | os.PathLike) -> None:
        """Write the report as Markdown."""
        self._write("markdown", path)

    def to_json(self, path: str | os.PathLike) -> None:
        """Write `to_dict()` as JSON."""
        self._write("json", path)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the rows: a plan that was priced each, or an alternative and a point of the curve; SI units."""
        self._write("csv", path)

    def to_parquet(self, path: str | os.PathLike) -> None:
        """Write the rows of `to_csv` with typed columns, units and meanings; the metadata has the rest of the JSON."""
        self._write("parquet", path)

    def _write(self, name: str, path: str | os.PathLike) -> None:
        from tensorcast.cli.output import write

        write(str(path), content(self.verb, name, self), f"to_{name}")
