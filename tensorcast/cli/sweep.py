"""`tensorcast sweep`: the same as `simulate` over lists and ranges of anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from tensorcast.cli import simulate
from tensorcast.cli.axes import axis_options, space_of
from tensorcast.cli.options import NonEmpty, Sectioned, Whole, command_line, debug_option, keep_options, option
from tensorcast.cli.output import STDOUT, check_outputs, write, writing, written
from tensorcast.cli.progress import bar
from tensorcast.errors import InputError

if TYPE_CHECKING:
    from tensorcast.report.pages.sample import Sample
    from tensorcast.search.summary import Summary

NOT_SWEPT = (*simulate.SECTIONS["Output"], "no_cache")
OWN = {
    "Space": ("space_file", "no_cache"),
    "Running": ("executor", "jobs", "out", "resume"),
    "Output": (
        "csv_file",
        "json_file",
        "html_file",
        "markdown_file",
        "parquet_file",
        "keep",
        "force",
        "top",
        "sort",
        "pareto",
        "quiet",
        "require_fit",
        "debug",
    ),
}
SECTIONS = {**simulate.sections_without(NOT_SWEPT), **OWN}


@click.command(
    "sweep",
    cls=Sectioned,
    sections=SECTIONS,
    short_help="The same over lists and ranges of anything.",
    examples=(
        "tensorcast sweep --model deepseek-v3 --hw h200-sxm --tp 8,16 --batch 1:64:x2",
        "tensorcast sweep --model qwen3-8b --hw h100,ascend-910b --quant none,w8a8 --sort ttft_s --top 5",
        "tensorcast sweep --model qwen3-8b --hw h100 --tp 1,2,4 --batch 1:64 --csv sweep.csv --quiet",
    ),
)
@option(
    "--space", "space_file", type=NonEmpty("FILE"), help="YAML: options with values, lists, ranges; or a list of such."
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache of traced models.")
@option("--executor", help="Where it runs: local, or dask://HOST:PORT.  [default: this process]")
@option("--jobs", type=Whole(), help="Processes on this machine.  [default: its cores, for large spaces]")
@option("--out", type=NonEmpty("DIR"), help="Keep the rows as a Parquet dataset in this folder.")
@click.option("--resume", is_flag=True, help="Go on with the sweep in --out.")
@option("--csv", "csv_file", type=NonEmpty("FILE"), help="Write one line per configuration; - is standard output.")
@option("--json", "json_file", type=NonEmpty("FILE"), help="Write the rows as JSON; - is standard output.")
@option("--html", "html_file", type=NonEmpty("FILE"), help="Write the report as a page that opens offline.")
@option("--markdown", "markdown_file", type=NonEmpty("FILE"), help="Write the report as Markdown; - as with --json.")
@option("--parquet", "parquet_file", type=NonEmpty("FILE"), help="Write the rows as one Parquet file.")
@keep_options
@option("--top", type=Whole(0), help="Rows to show.  [default: 10]")
@option("--sort", type=NonEmpty("FIGURE"), help="Show the best by this.  [default: tokens_per_s_per_device]")
@option("--pareto", type=NonEmpty("FIGURE,FIGURE"), help="Show the Pareto front of two figures.")
@click.option("--quiet", "-q", is_flag=True, help="Print no report.")
@click.option("--require-fit", is_flag=True, help="Exit with 3 when no configuration fits in memory.")
@debug_option
def command(
    space_file: str | None,
    no_cache: bool,
    executor: str | None,
    jobs: int | None,
    out: str | None,
    resume: bool,
    csv_file: str | None,
    json_file: str | None,
    html_file: str | None,
    markdown_file: str | None,
    parquet_file: str | None,
    top: int | None,
    sort: str | None,
    pareto: str | None,
    quiet: bool,
    require_fit: bool,
    debug: bool,
    **flags: Any,
) -> int:
    """Latency, throughput and memory of every combination of lists and ranges.

    Every option of `simulate` takes values with commas between; numbers take ranges with both ends: 1:8 counts by 1,
    1024:8192:1024 in steps, 1:512:x2 doubles. `none` leaves an option out where it is no value of its own. What cannot
    be is a row with the reason.
    """
    files = {"--csv": csv_file, "--json": json_file, "--parquet": parquet_file}
    check_outputs((*files.items(), ("--markdown", markdown_file), ("--html", html_file)))
    from tensorcast.report.pages.sample import Sample
    from tensorcast.search.axes.space import Space
    from tensorcast.search.frame import column_of, joined
    from tensorcast.search.summary import Summary, check_figure
    from tensorcast.search.sweep import run

    space = space_of(flags)
    if space_file is not None:
        space = Space.read(space_file) * space
    count = 10 if top is None else top
    summary = Summary(
        top=max(count, 1),
        sort=None if sort is None else check_figure(sort, "--sort"),
        pareto=None if pareto is None else _two(pareto),
        along=() if quiet else space.varying,
    )
    figures = filter(None, (summary.sort, *(summary.pareto or ())))
    options = [column_of(name) for name in space.varying]
    page = [] if html_file is None else [Sample(*figures, options=options, ranked=summary.sort)]
    with _sinks(files) as sinks:
        with bar(quiet) as report:
            for table in joined(run(space, executor, out, resume, jobs, not no_cache, report)):
                for sink in (summary, *sinks, *page):
                    sink.add(table)
        summary.check()
        for sink in sinks:
            sink.close({**summary.to_dict(), "command": command_line()})
    if markdown_file is not None:
        from tensorcast.report.markdown.search import sweep_markdown

        write(markdown_file, sweep_markdown(summary, space.varying, count, command_line()), "--markdown")
    if html_file is not None:
        with writing(html_file, quiet):
            made = _page(*page, summary, options)
        write(html_file, made, "--html")
    if not quiet and STDOUT not in (*files.values(), markdown_file, html_file):
        from tensorcast.report.terminal.sweep import print_sweep

        print_sweep(summary, space.varying, top=count)
    return simulate.DOES_NOT_FIT if require_fit and summary.fit == 0 else 0


def _page(sample: Sample, summary: Summary, varying: Sequence[str]) -> str:
    from tensorcast.report.pages import sweep_page
    from tensorcast.search.frame import to_pandas

    x, y = summary.pareto or (None, None)
    return sweep_page(
        to_pandas(sample.rows), varying, summary.sort, x, y, command_line(), counted=summary.to_dict(), sample=sample
    )


@contextmanager
def _sinks(files: Mapping[str, str | None]) -> Iterator[list[Any]]:
    """What writes the rows as they come; the files are there when the block ends, and nothing when it fails."""
    from tensorcast.report.data.rows import CsvRows, JsonRows, ParquetRows

    kinds = {"--csv": CsvRows, "--json": JsonRows, "--parquet": ParquetRows}
    with ExitStack() as stack:
        asked = [(flag, path) for flag, path in files.items() if path is not None]
        yield [kinds[flag](stack.enter_context(written(path, flag))) for flag, path in asked]


def _two(text: str) -> tuple[str, str]:
    from tensorcast.search.summary import check_figure

    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(f"--pareto {text!r}: two figures, such as tokens_per_s_per_user,tokens_per_s_per_device")
    return check_figure(names[0], "--pareto"), check_figure(names[1], "--pareto")


command.params = [*axis_options(simulate.command, NOT_SWEPT), *command.params]
