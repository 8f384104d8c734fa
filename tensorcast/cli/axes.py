"""The options of `simulate` as axes: each takes several values and ranges, and their product is a space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from tensorcast.cli.options import Fraction, Whole, once
from tensorcast.errors import InputError
from tensorcast.options import PLAN, PRECISION, flag
from tensorcast.search.axes.ranges import MOST_VALUES, NONE, is_range, numbers, pieces, unquoted
from tensorcast.search.axes.values import distinct

if TYPE_CHECKING:
    from tensorcast.search.axes.space import Space

WHOLE_VALUES = ("seq_lens", "dit_cache")
"""Options whose value has commas of its own: each occurrence is one alternative."""
SAME_FOR_ALL = ("custom", "no_plugin")
"""Repeatable options that say what code there is: all of them hold for every configuration."""


class Alternatives(click.ParamType):
    """Several values of `inner` with commas between, numbers in ranges too; converted to a tuple, None for `none`."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = f"{'|'.join(inner.choices) if isinstance(inner, click.Choice) else inner.name},…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name if isinstance(self.inner, click.Choice) else self.name.upper()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The last of the values, behind those that are there already; none of them twice."""
        done, comma, last = incomplete.rpartition(",")
        items = self.inner.shell_complete(ctx, param, last)
        left = [item for item in items if item.value not in done.split(",") and not (done and item.type != "plain")]
        for item in left:
            item.value = f"{done}{comma}{item.value}"
        return left

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = list(self._read(str(value)))
        except InputError as error:
            self.fail(str(error), param, ctx)
        return distinct(None if each is None else self.inner.convert(each, param, ctx) for each in found)

    def _read(self, text: str) -> Iterator[Any]:
        """What `inner` is to convert, None for `none`."""
        if isinstance(self.inner, (Whole, Fraction)):
            yield from numbers(text, whole=isinstance(self.inner, Whole))
            return
        keeps = isinstance(self.inner, click.Choice) and NONE in self.inner.choices
        for piece in pieces(text):
            yield None if piece == NONE and not keeps else unquoted(piece)


class OneAlternative(Alternatives):
    """One value, commas and all."""

    def _read(self, text: str) -> Iterator[Any]:
        yield None if text == NONE else text


class SettingAlternatives(Alternatives):
    """KEY=VALUE,VALUE,…: pairs of the same key."""

    def _read(self, text: str) -> Iterator[Any]:
        key, equals, values = text.partition("=")
        if not equals:
            yield text  # refused by `inner`, in its own words
            return
        for piece in pieces(values):
            ranged = numbers(piece, whole=not any(c in piece for c in ".eE")) if is_range(piece) else [piece]
            yield from (None if each == NONE else f"{key}={each}" for each in ranged)


class KernelAlternatives(Alternatives):
    """OP=NAME,NAME,…: kernels of the same operator; OP=NAME,OTHER=NAME: either of two changes."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        done, comma, last = incomplete.rpartition(",")
        if "=" in last or "=" not in done:
            return super().shell_complete(ctx, param, incomplete)
        op = done.rpartition("=")[0].rpartition(",")[2]
        items = self.inner.shell_complete(ctx, param, f"{op}={last}")
        for item in items:
            item.value = f"{done}{comma}{item.value.removeprefix(f'{op}=')}"
        return items

    def _read(self, text: str) -> Iterator[Any]:
        before = ""
        for piece in pieces(text):
            head, equals, _ = piece.rpartition("=")
            before = head if equals else before
            yield None if piece == NONE else piece if equals or not before else f"{before}={piece}"


class Switch(click.ParamType):
    """on or off; without a value, on."""

    name = "on|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if isinstance(value, bool):
            return value
        if value not in ("on", "off"):
            self.fail(f"{value!r}: on, off, or on,off for both", param, ctx)
        return value == "on"


def axis_options(command: click.Command, without: tuple[str, ...]) -> list[click.Option]:
    """The options of `simulate` but `without`, each with several values; none of them is required."""
    return [_axis_option(param) for param in command.params if param.name not in without]


def space_of(flags: Mapping[str, Any]) -> Space:
    """The space that these flags, as `axis_options` converted them, span; InputError."""
    from tensorcast.search.axes.space import Space

    axes = {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
    for name, value in axes.items():
        if name in SAME_FOR_ALL:
            axes[name] = (value,)
        elif value is True:
            axes[name] = (True,)
        elif isinstance(value, list):
            axes[name] = _combined(name, value)
    own = {name: value for name, value in axes.items() if not name.startswith("no_") or name == "no_plugin"}
    turned = {name.removeprefix("no_"): (False,) for name in axes.keys() - own.keys()}
    spelt = {"cfg_parallel": "cfg"}
    return Space([{spelt.get(name, name): value for name, value in {**own, **turned}.items()}])


def _axis_option(param: click.Option) -> click.Option:
    kind: dict[str, Any] = {"type": Alternatives(param.type), "multiple": True, "callback": _once}
    if param.name in SAME_FOR_ALL:
        kind = {"type": param.type, "multiple": True}
    elif param.is_flag and param.name in (*PLAN, *PRECISION):
        kind["type"] = Alternatives(Switch())
        kind |= {"is_flag": False, "flag_value": "on"}
    elif param.is_flag:
        kind = {"is_flag": True}
    elif param.name in WHOLE_VALUES:
        kind |= {"type": OneAlternative(param.type), "callback": _each_an_alternative}
    elif param.callback is not once:
        special = {"overrides": SettingAlternatives, "kernel": KernelAlternatives}.get(param.name, Alternatives)
        kind |= {"type": special(param.type), "callback": _each_an_axis}
    metavar = param.metavar and f"{param.metavar},…"
    return click.Option([param.name, *param.opts], help=param.help, metavar=metavar, **kind)


def _once(ctx: click.Context, param: click.Parameter, values: tuple[tuple[Any, ...], ...]) -> Any:
    """The values of an option that stands once."""
    if len(set(values)) > 1:
        raise click.BadParameter("given twice; give it once, with commas between its values", ctx, param)
    return values[0] if values else None


def _each_an_alternative(ctx: click.Context, param: click.Parameter, values: tuple[tuple[Any, ...], ...]) -> Any:
    return distinct(value for each in values for value in each)


def _each_an_axis(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> list[tuple[Any, ...]] | None:
    """Every occurrence is an axis of its own."""
    return list(values) or None


def _combined(name: str, axes: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The product of the axes of one repeatable option: each value is all that one configuration gives."""
    if math.prod(map(len, axes)) > MOST_VALUES:
        raise InputError(f"{flag(name)}: more than {MOST_VALUES:,} combinations; give fewer values")
    chosen = ([value for value in each if value is not None] for each in itertools.product(*axes))
    if name != "overrides":
        return distinct(tuple(each) or None for each in chosen)
    from tensorcast.cli.simulate import merged

    return distinct(merged(tuple(each)) or None for each in chosen)
