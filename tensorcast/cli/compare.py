"""`tensorcast compare`: machines, plans or models side by side, and where one overtakes the other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from tensorcast.cli import simulate
from tensorcast.cli.axes import Alternatives, axis_options, space_of
from tensorcast.cli.options import (
    NonEmpty,
    Quantity,
    Sectioned,
    Whole,
    command_line,
    debug_option,
    keep_options,
    option,
    repeatable,
)
from tensorcast.cli.output import STDOUT, check_outputs, write_files
from tensorcast.cli.progress import bar
from tensorcast.cli.sweep import NOT_SWEPT
from tensorcast.errors import InputError
from tensorcast.units import read_price

OWN = {
    "Alternatives": ("overlays", "price", "no_cache"),
    "Curve": ("along", "values", "metric"),
    "Output": (
        "json_file",
        "csv_file",
        "html_file",
        "markdown_file",
        "parquet_file",
        "keep",
        "force",
        "top",
        "quiet",
        "require_fit",
        "debug",
    ),
}
SECTIONS = {**simulate.sections_without(NOT_SWEPT), **OWN}


@click.command(
    "compare",
    cls=Sectioned,
    sections=SECTIONS,
    short_help="Machines, plans or models side by side.",
    examples=(
        "tensorcast compare --model qwen3-32b --hw h100-sxm,ascend-910c-die --tp 4",
        'tensorcast compare --model deepseek-v3 --with "--hw h200-sxm --tp 8" --with "--hw ascend-910c-die --tp 16"',
        "tensorcast compare --model qwen3-8b,llama-3.1-8b --hw h100 --along input-len --metric ttft_s",
    ),
)
@repeatable("--with", "overlays", type=NonEmpty("FLAGS"), help="An alternative: these flags over the common ones.")
@option(
    "--price",
    type=Quantity("X", read_price),
    help="Of a device-hour, for the cost per token.  [default: the profile's]",
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache of traced models.")
@option("--along", help="Curve along batch, input-len, output-len, concurrency; or none.  [default: batch]")
@option("--values", type=Alternatives(Whole()), help="Values of the curve.  [default: of batch 1:512:x2]")
@option("--metric", type=NonEmpty("FIGURE"), help="Figure of the curve.  [default: tokens_per_s_per_device]")
@option("--json", "json_file", type=NonEmpty("FILE"), help="Write the result as JSON; - is standard output.")
@option("--csv", "csv_file", type=NonEmpty("FILE"), help="Write one line per point of the curve; - is standard output.")
@option("--html", "html_file", type=NonEmpty("FILE"), help="Write the report as a page that opens offline.")
@option("--markdown", "markdown_file", type=NonEmpty("FILE"), help="Write the report as Markdown; - as with --json.")
@option("--parquet", "parquet_file", type=NonEmpty("FILE"), help="Write the rows of --csv as Parquet.")
@keep_options
@option("--top", type=Whole(0), help="Points of the curve to show.  [default: 12]")
@click.option("--quiet", "-q", is_flag=True, help="Print no report.")
@click.option("--require-fit", is_flag=True, help="Exit with 3 when no alternative fits in memory.")
@debug_option
def command(
    overlays: tuple[str, ...],
    price: float | None,
    no_cache: bool,
    along: str | None,
    values: tuple[int | None, ...] | None,
    metric: str | None,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    markdown_file: str | None,
    parquet_file: str | None,
    top: int | None,
    quiet: bool,
    require_fit: bool,
    debug: bool,
    **flags: Any,
) -> int:
    """Two to eight deployments side by side, and from which batch on one overtakes the other.

    Alternatives are the values of options that have several, or one for each --with. The curve prices every whole
    number between the least and the greatest of --values, so that break-even points are exact.
    """
    files = {
        "--json": json_file, "--csv": csv_file, "--html": html_file, "--markdown": markdown_file,
        "--parquet": parquet_file,
    }  # fmt: skip
    check_outputs([*files.items()])
    from tensorcast.search.comparison.compare import comparison

    along = "batch" if along is None else None if along == "none" else along
    for flag in ("--csv", "--parquet"):
        if files[flag] is not None and along is None:
            raise InputError(f"{flag} has the points of the curve, and --along none asks for none; --json has the rest")
    with bar(quiet) as report:
        found = comparison(
            _axes(flags, price), [_overlay(text) for text in overlays], along, values, metric, not no_cache, report
        )
    shown = {} if top is None else {"top": top}
    write_files("compare", found, files, quiet, command=command_line(), **shown)
    if not quiet and STDOUT not in files.values():
        from tensorcast.report.terminal.compare import print_comparison

        print_comparison(found, **shown)
    if require_fit and not found.fit:
        print("does not fit: no alternative does at the asked work", file=sys.stderr)
        return simulate.DOES_NOT_FIT
    return 0


def _axes(flags: Mapping[str, Any], price: float | None) -> dict[str, Sequence[Any]]:
    """Option → values, of flags as `axis_options` converted them."""
    axes = space_of(flags).products[0]
    return axes if price is None else {**axes, "price_per_hour": (price,)}


def _overlay(text: str) -> dict[str, Sequence[Any]]:
    """The axes that the text of --with names; InputError."""
    from tensorcast.cli.main import usage

    try:
        # A command of its own, so that its options are read as they are on the command line.
        reader = click.Command("--with", params=OF_AN_ALTERNATIVE, add_help_option=False)
        flags = reader.make_context("--with", shlex.split(text)).params
    except click.ClickException as error:
        raise InputError(f"--with {text!r}: {usage(error)}") from None
    except ValueError as error:
        raise InputError(f"--with {text!r}: {error}") from None
    return _axes(flags, flags.pop("price"))


OF_AN_ALTERNATIVE = [
    *axis_options(simulate.command, NOT_SWEPT),
    next(param for param in command.params if param.name == "price"),
]
command.params = [*OF_AN_ALTERNATIVE[:-1], *command.params]
