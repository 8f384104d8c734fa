"""`tensorcast accuracy`: the cost model against measured kernels and serving runs."""

from __future__ import annotations

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, keep_options, option, repeatable
from tensorcast.cli.output import STDOUT, check_outputs, write
from tensorcast.cli.progress import progress


@click.command(
    "accuracy",
    cls=Verb,
    short_help="Score the cost model against measured kernels.",
    examples=("tensorcast accuracy measurements --hw my-chip.yaml --held-out",),
)
@click.argument("folder", metavar="DIR", type=NonEmpty("DIR"))
@option(
    "--hw",
    type=NonEmpty("MACHINE"),
    help="Score the rows of this machine alone: a known name or a YAML file.  [default: every row's own]",
)
@repeatable("--family", "families", type=NonEmpty("FAMILY"), help="Score this table alone: gemm, moe, e2e ...")
@click.option("--held-out", is_flag=True, help="Score only the fifth of the shapes that no fit sees.")
@option("--json", "json_file", type=NonEmpty("FILE"), help="Write the scores as JSON; - is standard output.")
@keep_options
@click.option("--quiet", "-q", is_flag=True, help="Print no report.")
@debug_option
def command(
    folder: str,
    hw: str | None,
    families: tuple[str, ...],
    held_out: bool,
    json_file: str | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Predict every kernel measured in DIR and show how far off the predictions are.

    DIR holds tables, <family>.parquet, as `tensorcast measure` writes them; e2e.parquet has served models. Errors stand
    beside those of the plain roofline, per machine, format and kernel. Rows marked as suspect are left out.
    """
    check_outputs((("--json", json_file),))
    from tensorcast.calibration.report import score_folder

    with progress(quiet) as report:
        found = score_folder(folder, hw=hw, families=families, unseen=held_out, progress=report)
    if json_file is not None:
        from tensorcast.report.data.json import dumps

        write(json_file, dumps(found.to_dict()), "--json")
    if not quiet and json_file != STDOUT:
        from tensorcast.report.terminal.accuracy import print_accuracy

        print_accuracy(found)
