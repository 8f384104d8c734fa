"""`tensorcast new`: a starting file for a model or a machine of one's own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from tensorcast.cli.options import NonEmpty, Verb, debug_option, option
from tensorcast.cli.progress import progress
from tensorcast.errors import InputError

KINDS = ("model", "hardware")


@click.command(
    "new",
    cls=Verb,
    short_help="A starting file for a model or a machine of your own.",
    examples=("tensorcast new model my_moe --like qwen3_moe", "tensorcast new hardware my-chip --like ascend-910b"),
)
@click.argument("words", nargs=-1, metavar="[model|hardware] NAME")
@option(
    "--like",
    required=True,
    type=NonEmpty("NAME"),
    help="What to start from: a known model, a model type, or a known machine.",
)
@click.option("--force", is_flag=True, help="Write over files that exist.")
@debug_option
def command(words: tuple[str, ...], like: str, force: bool, debug: bool) -> None:
    """Write a starting file that passes `tensorcast check`: custom_model/NAME.py with its test, or
    hardware_profiles/NAME.yaml.
    """
    kind, name = _words(words)
    from tensorcast.starting import write_all

    with progress(begin=f"reading {like}"):
        if kind == "hardware":
            from tensorcast.starting.machine import machine_files

            files, note = machine_files(name, like)
        else:
            from tensorcast.starting.model import model_files

            files, note = model_files(name, like), f"made like {like}"
    write_all(files, force=force)
    _told(list(files), note)


def _words(words: tuple[str, ...]) -> tuple[str, str]:
    """(kind, name); a name alone is a model's."""
    if len(words) == 1 and words[0] not in KINDS:
        return "model", words[0]
    if len(words) != 2 or words[0] not in KINDS:
        raise InputError(f"new {' '.join(words)}: write new model NAME or new hardware NAME, with --like OTHER")
    return words[0], words[1]


def _told(files: list[Path], note: str) -> None:
    for file in files:
        click.echo(f"wrote {file}")
    for line in textwrap.wrap(note, 80, break_on_hyphens=False):
        click.echo(line)
    click.echo(f"next: tensorcast check {files[0]}")
