"""`tensorcast show`: one model or machine in full, with the source of each figure; the schema of a verb's JSON."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, json_flag

SOURCES = {
    "model": ("tensorcast.models.describe", "describe_model"),
    "hardware": ("tensorcast.hardware.describe", "describe_hardware"),
    "schema": ("tensorcast.report.tables.schema", "schema_of"),
}

# The columns of tables that are too wide for a terminal, most important first; --json has them whole.
COLUMNS = {
    "coefficients": ("family", "format", "kernel", "kind", "error", "rows", "formula", "includes", "values"),
    "collectives": ("op", "curve", "kind", "provenance"),
    "tiers": ("name", "kind", "devices", "bandwidth", "latency_s", "efficiency", "source"),
}


@click.command(
    "show",
    cls=Verb,
    short_help="One model or machine in full, with sources.",
    examples=(
        "tensorcast show model deepseek-v3",
        "tensorcast show hardware h100-sxm",
        "tensorcast show schema simulate",
    ),
)
@click.argument("what", type=click.Choice(list(SOURCES)))
@click.argument("name", type=NonEmpty("NAME"))
@json_flag
@debug_option
def command(what: str, name: str, as_json: bool, debug: bool) -> None:
    """Show one entry in full, with sources. NAME is as `tensorcast list` prints it; the schema is of a verb's JSON."""
    facts = describe(what, name)
    if as_json or what == "schema":  # which is JSON
        from tensorcast.report.data.json import dumps

        click.echo(dumps(facts), nl=False)
    else:
        from tensorcast.cli.table import print_facts

        print_facts(facts, COLUMNS)


def describe(what: str, name: str) -> dict[str, Any]:
    """The facts of one entry."""
    from tensorcast.cli.table import plain_row

    module, attribute = SOURCES[what]
    return plain_row(getattr(importlib.import_module(module), attribute)(name))
