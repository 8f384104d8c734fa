"""`tensorcast list`: what is known, with where each entry comes from."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, json_flag, option, source_options
from tensorcast.cli.progress import progress
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
# The columns of a table, most important first: the terminal's width says how many there are; --json has every field.
COLUMNS = {
    "models": ("name", "parameters", "architecture", "origin", "dtype", "hub_id", "source"),
    "hardware": (
        "name", "memory_bytes", "memory_bw", "bf16_flops", "aliases", "origin", "fp8_flops", "int8_flops", "devices",
    ),
    "kernels": (
        "op", "variant", "name", "default", "description", "needs", "origin", "priced_as", "replaces", "reason",
    ),
    "kernels on a machine": (
        "op", "variant", "name", "available", "reason", "default", "needs", "description", "origin", "priced_as",
    ),
    "ops": ("name", "origin", "description", "family"),
}  # fmt: skip


@click.command(
    "list",
    cls=Verb,
    short_help="Known models, hardware, kernels, ops, pipelines, profiles.",
    examples=(
        "tensorcast list models",
        "tensorcast list kernels --hw ascend-910b",
        "tensorcast list pipelines --explain deepseek-v3",
        "tensorcast list kernels --explain attention=flash --hw ascend-910b",
    ),
)
@click.argument("what", type=click.Choice(list(SOURCES)))
@option("--explain", type=NonEmpty("NAME"), help="Which entry NAME means, by which rule, and what it passes over.")
@option(
    "--hw", type=NonEmpty("MACHINE"), help="With kernels: which of them run on this machine, and why the rest do not."
)
@source_options
@json_flag
@debug_option
def command(
    what: str,
    explain: str | None,
    hw: str | None,
    custom: tuple[str, ...],
    no_custom_dir: bool,
    no_plugin: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """List what is known, one entry a line; --json prints every field in full."""
    with progress(begin=f"reading {what}"):
        if what in FROM_CODE or explain is not None:
            from tensorcast.custom.sources import Sources

            Sources.of(custom, folder=not no_custom_dir, no_plugin=no_plugin).load()
        found = rows(what, hw) if explain is None else []
    if explain is not None:
        told(what, explain, hw, as_json)
        return
    if as_json:
        from tensorcast.report.data.json import dumps

        click.echo(dumps(found), nl=False)
    elif found:
        from tensorcast.cli.table import print_rows

        columns = COLUMNS.get(what if hw is None else f"{what} on a machine", found[0])
        print_rows(found, [name for name in columns if name in found[0]])
    else:
        click.echo(f"no {what}")


def rows(what: str, hw: str | None = None) -> list[dict[str, Any]]:
    """The entries of one kind as plain dicts; kernels as they stand on the machine `hw`."""
    from tensorcast.cli.table import plain_row

    module, function = SOURCES[what]
    listed = getattr(importlib.import_module(module), function)
    machine = _machine(what, hw)
    return [plain_row(row) for row in (listed() if machine is None else listed(machine))]


def told(what: str, name: str, hw: str | None, as_json: bool) -> None:
    """Print why `name` means what it means."""
    from tensorcast.explain import explain

    facts = explain(what, name, _machine(what, hw))
    if as_json:
        from tensorcast.report.data.json import dumps

        click.echo(dumps(facts), nl=False)
    else:
        from tensorcast.cli.table import print_facts

        print_facts({key.replace("_", " "): value for key, value in facts.items()})


def _machine(what: str, hw: str | None) -> Any:
    """The machine that kernels are listed for."""
    if hw is None:
        return None
    if what != "kernels":
        raise InputError(f"--hw goes with `tensorcast list kernels`, not with {what}")
    from tensorcast.hardware.load import hardware

    return hardware(hw)
