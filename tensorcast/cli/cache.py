"""`tensorcast cache`: the traced models kept on disk."""

from __future__ import annotations

import click

from tensorcast.cli.options import Verb, debug_option, json_flag


@click.command(
    "cache",
    cls=Verb,
    short_help="Show or empty the cache of traced models.",
    examples=("tensorcast cache info", "tensorcast cache clear"),
)
@click.argument("action", type=click.Choice(["info", "clear"]))
@json_flag
@debug_option
def command(action: str, as_json: bool, debug: bool) -> None:
    """Show where traced models are kept and how large they are (info), or delete them (clear).

    The folder is the user's cache folder, or TENSORCAST_CACHE.
    """
    from tensorcast.trace import cache

    facts = cache.info() if action == "info" else {"deleted": cache.clear()}
    if as_json:
        from tensorcast.report.data.json import dumps

        click.echo(dumps(facts), nl=False)
    else:
        from tensorcast.cli.table import print_facts

        print_facts(facts)
