"""`tensorcast calibrate`: fit a machine's coefficients to its measured kernels."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from tensorcast.cli.options import NonEmpty, Verb, Whole, debug_option, option, repeatable
from tensorcast.cli.output import STDOUT, check_new, check_writable, write
from tensorcast.cli.progress import progress
from tensorcast.errors import InputError


@click.command(
    "calibrate",
    cls=Verb,
    short_help="Fit a machine's coefficients to measured kernels.",
    examples=("tensorcast calibrate --hw my-chip.yaml --data measurements --out my-chip-2.yaml",),
)
@option("--hw", required=True, type=NonEmpty("MACHINE"), help="Machine to calibrate: a known name or a YAML file.")
@option("--data", required=True, type=NonEmpty("DIR"), help="Folder of measured tables, <family>.parquet.")
@option("--out", required=True, type=NonEmpty("FILE"), help="Hardware file to write.")
@repeatable("--family", "families", type=NonEmpty("FAMILY"), help="Use this table alone: gemm, attention_decode ...")
@option("--restarts", type=Whole(0), help="Further starts of every fit: slower, at times better.  [default: 2]")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@debug_option
def command(
    hw: str, data: str, out: str, families: tuple[str, ...], restarts: int | None, force: bool, debug: bool
) -> None:
    """Fit the cost formulas to the kernels that were measured on a machine, and write its hardware file anew.

    Every line shows a kernel's error on rows the fit did not see: before, after, and whether more rows would help.
    What is not in the tables stays as it was. The file is written whole or not at all.
    """
    check(out, force)
    from tensorcast.calibration.profile import calibrate_folder, loaded

    with progress() as report:
        shown = (lambda family, share: report(f"fitting {family}", share)) if report else None
        found = calibrate_folder(
            hw,
            data,
            families=families,
            restarts=2 if restarts is None else restarts,
            told=Told(),
            started=shown,
        )
    for why in found.left:
        click.echo(f"left as it was: {why}")
    loaded(found.text, Path(out))  # what stands in the file must be a machine before it replaces anything
    write(out, found.text, "--out")
    click.echo(f"{out}: {found.hw.name} with {len(found.lines)} kernels calibrated")
    click.echo(f"use it as --hw {out}")


class Told:
    """Prints one line a kernel as it is done, under a head."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, line) -> None:
        # print, not click.echo, which would write past the status line and through it.
        if not self.begun:
            print(HEAD)
        self.begun = True
        print(text(line))


NAME = 37
HEAD = f"{'kernel':<{NAME}}{'rows':>6}{'median / p90 before':>21}{'after':>13}  %"


def check(out: str, force: bool) -> None:
    """InputError for a file that cannot be written, or that is there and may not be replaced."""
    if out == STDOUT or Path(out).suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out {out}: a hardware file ends in .yaml")
    check_writable(out, "--out")
    if not force:
        check_new(out, "--out")


def text(line) -> str:
    """One kernel's line."""
    name = " ".join(part for part in (line.family, line.format, line.kernel) if part not in ("", "any"))
    before = f"{line.before.median:.1f} / {line.before.p90:.1f}" if line.before else "-"
    after = f"{line.after.median:.1f} / {line.after.p90:.1f}"
    head = f"{name:<{NAME}}" if len(name) < NAME else f"{name}\n{'':<{NAME}}"
    told = [f"{head}{line.rows:>6,}{before:>21}{after:>13}"]
    return "\n".join(told + textwrap.wrap(line.advice() or "", 78, initial_indent="  ", subsequent_indent="    "))
