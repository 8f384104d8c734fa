"""`tensorcast show`: one model or machine in full, with the source of each figure."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tensorcast.cli.options import debug_option, json_flag
from tensorcast.cli.table import plain_row, print_facts

SOURCES = {
    "model": ("tensorcast.models.describe", "describe_model"),
    "hardware": ("tensorcast.hardware.describe", "describe_hardware"),
}


@click.command("show", short_help="One model or machine in full, with sources.")
@click.argument("what", type=click.Choice(list(SOURCES)))
@click.argument("name")
@json_flag
@debug_option
def command(what: str, name: str, as_json: bool, debug: bool) -> None:
    """Show one entry in full, with sources. NAME is as `tensorcast list` prints it."""
    facts = describe(what, name)
    if as_json:
        from tensorcast.report.json import dumps

        click.echo(dumps(facts), nl=False)
    else:
        print_facts(facts)


def describe(what: str, name: str) -> dict[str, Any]:
    """The facts of one entry."""
    module, attribute = SOURCES[what]
    return plain_row(getattr(importlib.import_module(module), attribute)(name))
