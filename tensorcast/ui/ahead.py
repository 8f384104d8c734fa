"""What may be asked next: other values of the control that was moved last, and of what is moved most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.search.evaluation.cases import VARIABLES
from tensorcast.ui.controls import SCALES, choices

Options = Mapping[str, Any]
"""Arguments of `tc.simulate`."""
MOST_MOVED = ("tp", "ep")
BESIDE = 2
"""Of what is moved most, so many values that are nearest; of what was moved last, all."""


def neighbours(asked: Options, moved: str, *, traced: bool = False) -> dict[str, Options]:
    """What to trace, by a key of its own → `asked` with one other value, the likeliest first.

    `traced`: each value of `moved` has to be traced, though it is one of the work. Of other work it is enough that
    the deployment is traced once.
    """
    apart = moved if traced else ""
    others = [(moved, value) for value in _others(moved, asked)] if traced or moved not in VARIABLES else []
    others += [(name, value) for name in MOST_MOVED if name != moved for value in _others(name, asked)[:BESIDE]]
    return {_key(options, apart): options for options in ({**asked, name: value} for name, value in others)}


def _others(name: str, asked: Options) -> list[Any]:
    """The other values that the control offers, the nearest first."""
    stops = SCALES.get(name) or choices(name)
    here = asked.get(name, stops[0] if stops else None)
    at = stops.index(here) if here in stops else 0
    return sorted((stop for stop in stops if stop != here), key=lambda stop: abs(stops.index(stop) - at))


def _key(options: Options, apart: str) -> str:
    return repr(sorted((name, value) for name, value in options.items() if name == apart or name not in VARIABLES))
