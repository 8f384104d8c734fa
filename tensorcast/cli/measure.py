"""`tensorcast measure`: time kernels on a real machine."""

from __future__ import annotations

import os

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, option, repeatable
from tensorcast.cli.progress import progress
from tensorcast.errors import InputError


@click.command(
    "measure",
    cls=Verb,
    short_help="Time kernels on this computer's accelerator.",
    examples=("tensorcast measure --hw my-chip.yaml --out measurements --quick",),
)
@option("--hw", required=True, type=NonEmpty("MACHINE"), help="The machine this is: a known name or a YAML file.")
@option("--out", required=True, type=NonEmpty("DIR"), help="Folder of tables to add to; made if it is not there.")
@option("--device", type=click.Choice(["cpu", "cuda", "npu"]), help="What to measure.  [default: the accelerator]")
@click.option("--quick", is_flag=True, help="Few shapes: minutes.")
@click.option("--full", is_flag=True, help="Many shapes: an hour.")
@repeatable("--family", "families", type=NonEmpty("FAMILY"), help="Measure this table alone: gemm, memory ...")
@debug_option
def command(
    hw: str, out: str, device: str | None, quick: bool, full: bool, families: tuple[str, ...], debug: bool
) -> None:
    """Time torch's kernels here and keep them as tables that `calibrate` and `accuracy` read.

    Every call finds its operands cold; the median of several is kept. A run that was broken off goes on where it
    stopped. Nothing else should run on the device meanwhile.
    """
    if quick and full:
        raise InputError("--quick and --full: give one of them")
    if os.path.exists(out) and not os.path.isdir(out):
        raise InputError(f"--out {out}: is a file; give a folder")
    from tensorcast.hardware.load import hardware
    from tensorcast.measure.run import measure

    machine = hardware(hw)
    with progress() as report:
        measure(
            machine,
            out,
            device=device,
            size="quick" if quick else "full" if full else "normal",
            families=families,
            told=print,  # click.echo would write past the status line and through it
            progress=report,
        )
    click.echo(f"{out}: ready for `tensorcast calibrate --hw {hw} --data {out} --out FILE`")
