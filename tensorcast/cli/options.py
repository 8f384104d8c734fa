"""Option types and helpers shared by the verbs: what a value must look like is checked here, at the edge."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import click

from tensorcast.cli.output import KEEP


class Whole(click.ParamType):
    """A whole number of at least `least`."""

    name = "N"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = None
        # int() also reads "1_000", " 7" and Arabic digits; a typing slip must not become a figure.
        plain = str(value).lstrip("-").isascii() and str(value).lstrip("-").isdigit()
        if number is None or not plain or number < self.least:
            self.fail(f"{value!r} is not a whole number of at least {self.least}", param, ctx)
        return number


class Fraction(click.ParamType):
    """A number between 0 and 1; `open_below` excludes 0."""

    name = "X"

    def __init__(self, *, open_below: bool) -> None:
        self.open_below = open_below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (0 <= number <= 1) or (self.open_below and number == 0):
            span = "above 0 and at most 1" if self.open_below else "from 0 to 1"
            self.fail(f"{value!r} is not a number {span}", param, ctx)
        return number


class Quantity(click.ParamType):
    """A number with a unit, as `read` reads it: text → value, or ValueError with what is wrong."""

    def __init__(self, name: str, read: Callable[[str], float]) -> None:
        self.name, self.read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return self.read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Lengths(click.ParamType):
    """Whole numbers of tokens with commas between: 128,4096,77."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(Whole().convert(part.strip(), param, ctx) for part in str(value).split(","))


class Setting(click.ParamType):
    """KEY=VALUE, the value read as YAML (`3`, `true`, `[1, 2]`, `text`); converted to a (key, value) pair."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, object]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not KEY=VALUE, e.g. --set num_hidden_layers=4", param, ctx)
        import yaml

        try:
            return key.strip(), yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            self.fail(f"{value!r}: the value is not readable; quote it, e.g. --set 'name=\"text\"'", param, ctx)


class NonEmpty(click.ParamType):
    """A text that is not blank; `name` stands for it in the help and tells what a shell may offer for it."""

    name = "TEXT"

    def __init__(self, name: str = "TEXT") -> None:
        self.name = name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from tensorcast.cli.completion import suggested

        return suggested(self.name, ctx, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("is empty; give a value", param, ctx)
        return str(value)


class Verb(click.Command):
    """A command whose help ends with examples: whole command lines, which the tests run."""

    def __init__(self, *args: Any, examples: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, lines: Sequence[str]) -> None:
    """Command lines, those that are too wide broken as a shell takes them: before an option, with a backslash."""
    room = formatter.width - formatter.current_indent - 2
    for line in lines:
        shown, *options = re.split(r' (?=--\w)(?=(?:[^"]*"[^"]*")*[^"]*$)', line)  # not inside quotes
        for each in options:
            broken = len(shown.rpartition("\n")[2]) + 1 + len(each) > room
            shown += f" \\\n    {each}" if broken else f" {each}"
        for text in shown.split("\n"):
            formatter.write(f"{'':{formatter.current_indent}}{text}\n")


class Sectioned(Verb):
    """A verb whose help lists its options in titled sections: title -> parameter names."""

    def __init__(self, *args: Any, sections: dict[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        # What no section names (click's own --help) is shown all the same.
        with formatter.section("Help"):
            formatter.write_dl([record for record in records.values() if record])


def once(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    """The one value of an option, or None: of two different values one would be dropped, so they are an error."""
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise click.BadParameter(f"given twice, {different[0]} and {different[1]}; give it once", ctx, param)
    return different[0] if different else None


def option(*names: str, help: str, type: click.ParamType | None = None, **kwargs: Any) -> Callable[[Any], Any]:
    """A click option that takes one value; `kwargs` as click.option's."""
    return click.option(*names, multiple=True, callback=once, type=type or NonEmpty(), help=help, **kwargs)


def repeatable(*names: str, help: str, type: click.ParamType) -> Callable[[Any], Any]:
    """A click option that may be given several times; its value is a tuple."""
    return click.option(*names, multiple=True, type=type, help=f"{help} Repeatable.")


def source_options(command: Any) -> Any:
    """--custom, --no-custom-dir and --no-plugin: which user code counts. Same meaning for every verb."""
    for decorate in (
        repeatable("--no-plugin", type=NonEmpty("NAME"), help="Do not load this installed plugin."),
        click.option("--no-custom-dir", is_flag=True, help="Do not load ./custom_model."),
        repeatable("--custom", type=NonEmpty("PATH"), help="Your model or kernels: a .py file, a package, a graph."),
    ):
        command = decorate(command)
    return command


KEEP_VARIABLE = "TENSORCAST_KEEP"
KEEP_VALUES = {"": False, "0": False, "1": True}


def keep_options(command: Any) -> Any:
    """--keep and --force: whether a file that exists is replaced, which `cli.output` asks the context."""
    for decorate in (
        click.option("--force", is_flag=True, expose_value=False, callback=_forced, help="Replace files that exist."),
        click.option(
            "--keep",
            is_flag=True,
            expose_value=False,
            callback=_kept,
            help=f"Leave files that exist alone; with {KEEP_VARIABLE}=1 every command does.",
        ),
    ):
        command = decorate(command)
    return command


def _kept(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    asked = os.environ.get(KEEP_VARIABLE, "")
    if asked not in KEEP_VALUES:
        raise click.UsageError(f"{KEEP_VARIABLE}={asked}: 1 keeps files that exist, 0 or nothing replaces them")
    ctx.meta.setdefault(KEEP, value or KEEP_VALUES[asked])  # --force may have spoken already


def _forced(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[KEEP] = False


def command_line() -> str:
    """The command line that runs, as typed."""
    root = click.get_current_context().find_root()
    return shlex.join([root.info_name, *root.obj])


debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
