"""`tensorcast list`: what is known, with where each entry comes from."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tensorcast.cli.options import debug_option, json_flag, source_options
from tensorcast.cli.table import plain_row, print_rows
from tensorcast.errors import InputError

# what -> (module, function that returns the rows)
SOURCES = {
    "models": ("tensorcast.models.entries", "list_models"),
    "hardware": ("tensorcast.hardware.describe", "list_hardware"),
    "kernels": ("tensorcast.kernels", "list_kernels"),
    "ops": ("tensorcast.ops", "list_ops"),
    "pipelines": ("tensorcast.pipelines", "list_pipelines"),
    "profiles": ("tensorcast.pipelines", "list_profiles"),
}
FROM_CODE = ("kernels", "ops", "pipelines", "profiles")  # what user code adds to
# What a table line has room for; --json has every field.
COLUMNS = {
    "models": ("name", "parameters", "architecture", "dtype", "hub_id", "origin", "source"),
    "hardware": (
        "name", "memory_bytes", "memory_bw", "bf16_flops", "fp8_flops", "int8_flops", "devices", "origin", "aliases",
    ),
    "ops": ("name", "family", "origin", "description"),
}  # fmt: skip


@click.command("list", short_help="Known models, hardware, kernels, ops, pipelines, profiles.")
@click.argument("what", type=click.Choice(list(SOURCES)))
@click.option("--hw", help="With kernels: which of them run on this machine, and why the rest do not.")
@source_options
@json_flag
@debug_option
def command(
    what: str,
    hw: str | None,
    custom: tuple[str, ...],
    no_custom_dir: bool,
    no_plugin: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """List what is known, one entry a line, with its origin; --json prints every field."""
    if what in FROM_CODE:
        from tensorcast.custom.sources import Sources

        Sources.of(custom, folder=not no_custom_dir, no_plugin=no_plugin).load()
    found = rows(what, hw)
    if as_json:
        from tensorcast.report.json import dumps

        click.echo(dumps(found), nl=False)
    elif found:
        print_rows(found, [name for name in COLUMNS.get(what, found[0]) if name in found[0]])
    else:
        click.echo(f"no {what}")


def rows(what: str, hw: str | None = None) -> list[dict[str, Any]]:
    """The entries of one kind as plain dicts; kernels as they stand on the machine `hw`."""
    module, function = SOURCES[what]
    listed = getattr(importlib.import_module(module), function)
    if hw is None:
        return [plain_row(row) for row in listed()]
    if what != "kernels":
        raise InputError(f"--hw goes with `tensorcast list kernels`, not with {what}")
    from tensorcast.hardware.load import hardware

    return [plain_row(row) for row in listed(hardware(hw))]
