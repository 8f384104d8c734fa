"""The controls of the page: the options of `tensorcast simulate`, read by the command line's own parser."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import click

from tensorcast.cli.options import Fraction, Whole
from tensorcast.cli.simulate import SECTIONS, request
from tensorcast.cli.simulate import command as simulate
from tensorcast.errors import InputError
from tensorcast.options import KNOWN, SPELLINGS

TAKEN = ("model", "hw", *KNOWN, "strict")
"""What a page may ask. Output files and user code are the command line's own to name."""
FRONT = (
    "model", "hw", "engine", "tp", "ep", "dp", "pp", "overlap", "quant", "kv_cache_dtype", "phase", "batch",
    "input_len", "output_len", "mtp", "concurrency",
)  # fmt: skip
"""Controls that are seen at once; the others unfold."""
ASKED_SO = ["tensorcast", "simulate"]
"""How a command line begins that somebody pastes."""


def _doubling(most: int) -> tuple[int, ...]:
    """1, 2, 4 … `most`."""
    return tuple(2**power for power in range(most.bit_length()))


def _evenly(least: int, most: int) -> tuple[int, ...]:
    """Powers of two and what lies half-way between them, `least` to `most`."""
    steps = sorted({*_doubling(most), *(3 * power for power in _doubling(most // 3))})
    return tuple(step for step in steps if least <= step <= most)


_FRAMES = (1, 9, 17, 25, 33, 49, 65, 81, 97, 121, 161, 193, 241)
"""One more than a multiple of 8: videos are compressed by 4 or 8 frames, the first apart."""
_SHARES = tuple(round(0.05 * step, 2) for step in range(1, 21))
SCALES: Mapping[str, tuple[float, ...]] = {
    "tp": _doubling(64), "ep": _doubling(256), "dp": _doubling(256), "pp": _doubling(64), "sp": _doubling(16),
    "cfg_parallel": (1, 2), "dcp": _doubling(16), "micro_batches": _doubling(64), "batch": _evenly(1, 4096),
    "input_len": _evenly(16, 2**20), "output_len": _evenly(1, 2**17), "max_model_len": _evenly(1024, 2**20),
    "prefix_len": (0, *_evenly(128, 2**19)), "chunk": _evenly(128, 2**16), "concurrency": _evenly(1, 4096),
    "mtp": tuple(range(9)), "zero": tuple(range(4)), "steps": _evenly(1, 128), "frames": _FRAMES,
    "gpu_memory_utilization": _SHARES, "acceptance_rate": (0.0, *_SHARES),
}  # fmt: skip
"""Where the sliders stop. Any other value can be typed."""
_HALF = re.compile("[\ud800-\udfff]")  # JSON has them
_DEFAULT = re.compile(r"\[default: ([^],;]+)")


class Control(NamedTuple):
    """An option as the page shows it. `kind`: slider, choice, switch or text; `default`: as its help says."""

    name: str
    flag: str
    help: str
    default: str
    kind: str
    values: tuple[Any, ...]
    front: bool


def sections() -> dict[str, list[Control]]:
    """Title → controls, in the order of `simulate --help`."""
    options = {option.name: option for option in parser().params}
    shown = {title: [_control(options[name]) for name in names if name in options] for title, names in SECTIONS.items()}
    return {title: controls for title, controls in shown.items() if controls}


def arguments(options: Mapping[str, str | bool], more: str = "") -> dict[str, Any]:
    """The arguments of `tc.simulate` that the controls and a line of more flags ask for.

    `options`: name → text, True for a switch. Raises InputError or click's own errors, in the command line's words.
    """
    words = [word for name, value in options.items() for word in _words(name, value)]
    if half := next((text for text in (*words, more) if _HALF.search(text)), None):
        raise InputError(f"{half!r}: has half a character, which no name has")
    try:
        typed = shlex.split(more)
    except ValueError as error:
        raise InputError(f"more flags: {error}") from None
    typed = typed[len(ASKED_SO) :] if typed[: len(ASKED_SO)] == ASKED_SO else typed
    return request(parser().make_context("simulate", [*words, *typed]).params)


@cache
def parser() -> click.Command:
    """`tensorcast simulate` with the options that a page may give."""
    params = [param for param in simulate.params if SPELLINGS.get(param.name, param.name) in TAKEN]
    return click.Command("simulate", params=params, add_help_option=False)


def _words(name: str, value: str | bool) -> Iterable[str]:
    option = next((each for each in parser().params if each.name == name), None)
    if option is None:
        raise InputError(f"no option {name!r}; the page takes {', '.join(each.name for each in parser().params)}")
    if option.is_flag != isinstance(value, bool):
        raise InputError(f"{option.opts[0]} {value!r}: {'true or false' if option.is_flag else 'a text'}")
    if option.is_flag:
        return [option.opts[0]] * value
    return [f"{option.opts[0]}={value}"]


def choices(name: str) -> tuple[str, ...]:
    """The values of an option that takes only some; none of another."""
    kind = next((option.type for option in parser().params if option.name == name), None)
    return tuple(kind.choices) if isinstance(kind, click.Choice) else ()


def _control(option: click.Option) -> Control:
    kind = "choice" if isinstance(option.type, click.Choice) else "switch" if option.is_flag else "text"
    values = choices(option.name) or SCALES.get(option.name, ())
    if isinstance(option.type, (Whole, Fraction)) and values:
        kind = "slider"
    said = _DEFAULT.search(option.help)
    default = said[1] if said and (kind != "slider" or said[1].isdecimal()) else ""
    return Control(option.name, option.opts[0], option.help, default, kind, values, option.name in FRONT)
