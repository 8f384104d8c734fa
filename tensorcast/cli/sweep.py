"""`tensorcast sweep`: the same as `simulate` over lists and ranges of anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from tensorcast.cli import simulate
from tensorcast.cli.axes import axis_options, space_of
from tensorcast.cli.options import NonEmpty, Sectioned, Whole, debug_option, option
from tensorcast.cli.output import STDOUT, check_outputs, whole_file
from tensorcast.cli.progress import bar
from tensorcast.errors import InputError

NOT_SWEPT = (*simulate.SECTIONS["Output"], "no_cache")
OWN = {
    "Space": ("space_file", "no_cache"),
    "Running": ("executor", "jobs", "out", "resume"),
    "Output": ("csv_file", "json_file", "top", "sort", "pareto", "quiet", "require_fit", "debug"),
}
SECTIONS = {
    **{
        title: tuple(name for name in names if name not in NOT_SWEPT)
        for title, names in simulate.SECTIONS.items()
        if title != "Output"
    },
    **OWN,
}


@click.command("sweep", cls=Sectioned, sections=SECTIONS, short_help="simulate over lists and ranges of anything.")
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
@option("--top", type=Whole(0), help="Rows to show.  [default: 10]")
@option("--sort", type=NonEmpty("FIGURE"), help="Show the best by this.  [default: tokens_per_s_per_device]")
@option("--pareto", type=NonEmpty("X,Y"), help="Show the Pareto front of two figures.")
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
    be is a row with the reason. Example:

    \b
      tensorcast sweep --model deepseek-v3 --hw h200-sxm --tp 8,16 --batch 1:512:x2
    """
    check_outputs((("--csv", csv_file), ("--json", json_file)))
    from tensorcast.search.space import Space
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
    )
    with _sinks(csv_file, json_file) as sinks:
        with bar(quiet) as report:
            for table in run(space, executor, out, resume, jobs, not no_cache, report):
                for sink in (summary, *sinks):
                    sink.add(table)
        summary.check()
        for sink in sinks:
            sink.close(summary.to_dict())
    if not quiet and STDOUT not in (csv_file, json_file):
        from tensorcast.report.sweep import print_sweep

        print_sweep(summary, space.varying, top=count)
    return simulate.DOES_NOT_FIT if require_fit and summary.fit == 0 else 0


@contextmanager
def _sinks(csv_file: str | None, json_file: str | None) -> Iterator[list[Any]]:
    """What writes the rows as they come; the files are there when the block ends, and nothing when it fails."""
    from tensorcast.report.rows import CsvRows, JsonRows

    with ExitStack() as stack:
        files = (("--csv", csv_file, CsvRows), ("--json", json_file, JsonRows))
        yield [kind(stack.enter_context(_written(flag, path))) for flag, path, kind in files if path is not None]


@contextmanager
def _written(flag: str, path: str) -> Iterator[Any]:
    try:
        with whole_file(path) as stream:
            yield stream
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot write: {error.strerror or error}") from error


def _two(text: str) -> tuple[str, str]:
    from tensorcast.search.summary import check_figure

    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(f"--pareto {text!r}: two figures, such as tokens_per_s_per_user,tokens_per_s_per_device")
    return check_figure(names[0], "--pareto"), check_figure(names[1], "--pareto")


command.params = [*axis_options(simulate.command, NOT_SWEPT), *command.params]
