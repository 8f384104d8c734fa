"""`tensorcast optimize`: the best deployment on a number of devices under limits."""

from __future__ import annotations

import sys
from typing import Any

import click

from tensorcast.cli import simulate
from tensorcast.cli.axes import axis_options, space_of
from tensorcast.cli.options import (
    NonEmpty,
    Quantity,
    Sectioned,
    Whole,
    command_line,
    debug_option,
    keep_options,
    option,
)
from tensorcast.cli.output import STDOUT, check_outputs, write, write_files
from tensorcast.cli.progress import bar
from tensorcast.units import read_price, read_seconds, read_share

MODES = ("aggregated", "static", "disaggregated")
OBJECTIVES = ("throughput", "cost", "energy")
NOT_SEARCHED = (
    *simulate.SECTIONS["Output"], *simulate.SECTIONS["Training"], "no_cache", "phase", "sp", "cfg_parallel", "seq_lens",
    "concurrency", "frames", "steps", "guidance", "dit_cache",
)  # fmt: skip
"""Options of `simulate` for other work than serving a language model, and what is looked for."""
SECTIONS = {
    "Search": (
        "devices", "ttft", "tpot", "memory_headroom", "objective", "price", "mode", "top", "jobs", "no_cache",
    ),
    **simulate.sections_without(NOT_SEARCHED),
    "Output": (
        "json_file", "csv_file", "html_file", "markdown_file", "parquet_file", "keep", "force", "emit", "quiet",
        "debug",
    ),
}  # fmt: skip


@click.command(
    "optimize",
    cls=Sectioned,
    sections=SECTIONS,
    short_help="The best plan and batch on N devices.",
    examples=(
        "tensorcast optimize --model qwen3-32b --hw h100 --devices 8 --ttft 2s --tpot 50ms",
        "tensorcast optimize --model qwen3-32b --hw h100 --devices 8 --mode disaggregated --top 3",
        "tensorcast optimize --model qwen3-8b --hw h100 --devices 4 --objective energy --emit vllm",
    ),
)
@option("--devices", type=Whole(), required=True, help="Devices there are.")
@option("--ttft", type=Quantity("TIME", read_seconds), help="Longest time to the first token: 2s, 500ms.")
@option("--tpot", type=Quantity("TIME", read_seconds), help="Longest time per output token: 50ms.")
@option("--memory-headroom", type=Quantity("SHARE", read_share), help="Memory to leave free: 10%.  [default: 0]")
@option("--objective", type=click.Choice(OBJECTIVES), help="Most tokens, or least cost or energy a token.")
@option("--price", type=Quantity("X", read_price), help="What a device costs an hour.  [default: the profile's]")
@option("--mode", type=click.Choice(MODES), help="How requests are served.  [default: aggregated]")
@option("--top", type=Whole(), help="Plans to rank.  [default: 5]")
@option("--jobs", type=Whole(), help="Processes.  [default: one a core]")
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache of traced models.")
@option("--json", "json_file", type=NonEmpty("FILE"), help="Write the result as JSON; - is standard output.")
@option("--csv", "csv_file", type=NonEmpty("FILE"), help="Write a line per plan, best first; - is standard output.")
@option("--html", "html_file", type=NonEmpty("FILE"), help="Write the report as a page that opens offline.")
@option("--markdown", "markdown_file", type=NonEmpty("FILE"), help="Write the report as Markdown; - as with --json.")
@option("--parquet", "parquet_file", type=NonEmpty("FILE"), help="Write the rows of --csv as Parquet.")
@keep_options
@option("--emit", type=click.Choice(simulate.ENGINES[1:]), help="Print what starts the best plan on a serving engine.")
@click.option("--quiet", "-q", is_flag=True, help="Print no report.")
@debug_option
def command(
    devices: int,
    ttft: float | None,
    tpot: float | None,
    memory_headroom: float | None,
    objective: str | None,
    price: float | None,
    mode: str | None,
    top: int | None,
    jobs: int | None,
    no_cache: bool,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    markdown_file: str | None,
    parquet_file: str | None,
    emit: str | None,
    quiet: bool,
    debug: bool,
    **flags: Any,
) -> int:
    """The parallel plan and batch with the most tokens per device, or the least cost or energy a token.

    Every plan that the devices allow is looked at. Machine, precision, kernels, --tp, --ep, --dp, --pp and --batch take
    values with commas between and ranges: all of their combinations are. --mode aggregated: continuous batching, the
    batch is the clients at all times. static: one batch as `simulate` runs it. disaggregated: prompts and decode on
    instances of their own. Exit code 3: nothing meets the limits; the nearest is shown.
    """
    files = {
        "--json": json_file, "--csv": csv_file, "--html": html_file, "--markdown": markdown_file,
        "--parquet": parquet_file,
    }  # fmt: skip
    check_outputs((*files.items(), ("--emit", STDOUT if emit is not None else None)))
    from tensorcast.search.optimization.optimize import optimize

    asked = {
        "ttft_s": ttft, "tpot_s": tpot, "memory_headroom": memory_headroom, "objective": objective,
        "price_per_hour": price, "mode": mode, "top": top, "jobs": jobs,
    }  # fmt: skip
    axes = space_of(flags).products[0]
    with bar(quiet) as report:
        given = {name: value for name, value in asked.items() if value is not None}
        found = optimize(devices=devices, cache=not no_cache, progress=report, **given, **axes)
    line = found.start_line(emit) if emit is not None and found.feasible else None
    write_files("optimize", found, files, quiet, command=command_line(), start=line)
    if not quiet and STDOUT not in files.values():
        from tensorcast.report.terminal.optimize import print_optimum

        print_optimum(found)
    if line is not None:
        write(STDOUT, f"{line}\n", "--emit")
    return _verdict(found)


def _verdict(found: Any) -> int:
    """The exit code: 3 where nothing meets the limits, which one line on stderr says."""
    if found.feasible:
        return 0
    print(f"no plan meets the limits; the nearest would with {' and '.join(found.what_would)}", file=sys.stderr)
    return simulate.DOES_NOT_FIT


command.params = [*command.params, *axis_options(simulate.command, NOT_SEARCHED)]
