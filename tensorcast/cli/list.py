"""`tensorcast list`: what is known, with where each entry comes from."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tensorcast.cli.options import debug_option, json_flag
from tensorcast.cli.table import plain_row, print_rows

# what -> (module, attribute): a function returning rows, or a Catalog.
SOURCES = {
    "models": ("tensorcast.models.entries", "list_models"),
    "hardware": ("tensorcast.hardware.load", "list_hardware"),
    "kernels": ("tensorcast.kernels", "list_kernels"),
    "ops": ("tensorcast.ops", "list_ops"),
    "pipelines": ("tensorcast.pipelines", "list_pipelines"),
    "profiles": ("tensorcast.pipelines", "list_profiles"),
}
# What a table line has room for; --json has every field.
COLUMNS = {
    "models": ("name", "parameters", "architecture", "dtype", "hub_id", "origin", "source"),
    "ops": ("name", "family", "origin", "description"),
}


@click.command("list", short_help="Known models, hardware, kernels, ops, pipelines, profiles.")
@click.argument("what", type=click.Choice(list(SOURCES)))
@json_flag
@debug_option
def command(what: str, as_json: bool, debug: bool) -> None:
    """List what is known, one entry a line, with its origin; --json prints every field."""
    found = rows(what)
    if as_json:
        from tensorcast.report.json import dumps

        click.echo(dumps(found), nl=False)
    elif found:
        print_rows(found, [name for name in COLUMNS.get(what, found[0]) if name in found[0]])
    else:
        click.echo(f"no {what}")


def rows(what: str) -> list[dict[str, Any]]:
    """The entries of one kind as plain dicts."""
    module, attribute = SOURCES[what]
    source = getattr(importlib.import_module(module), attribute)
    if callable(source):
        return [plain_row(row) for row in source()]
    return [{"name": e.key, "origin": e.origin, "replaces": e.replaces} for e in source.entries()]
